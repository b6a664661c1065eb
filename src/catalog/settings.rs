//! A server's settings.
//!
//! Invariant: settings that decide are read here and nowhere else; which of
//! them decide what is not known here.
//!
//! Source: `pg_settings` gives the value in the setting's unit, which is a
//! power of two of bytes, or a time (`src/backend/utils/misc/guc.c`,
//! `memory_unit_conversion_table`).

use std::collections::HashMap;

use crate::session::{DbContext, DbError, Session};

/// Some settings as a session has them.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    by_name: HashMap<String, Setting>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As `SHOW` gives it.
    pub shown: String,
    /// The number, in `unit`; `None` where it is none.
    pub number: Option<i64>,
    /// The unit of the number.
    pub unit: Option<String>,
}

impl Setting {
    /// The number in bytes. `None` where it is no size, or means "no limit".
    pub fn bytes(&self) -> Option<u64> {
        let factor = match self.unit.as_deref() {
            None | Some("B") => 1,
            Some("kB") => 1 << 10,
            Some("8kB") => 8 << 10,
            Some("MB") => 1 << 20,
            Some(_) => return None,
        };
        u64::try_from(self.number?).ok()?.checked_mul(factor)
    }
}

impl Settings {
    /// A setting; `None` where this server has no such setting.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.by_name.get(name)
    }

    /// A setting as `SHOW` gives it; empty where this server has none.
    pub fn shown(&self, name: &str) -> &str {
        self.get(name).map_or("", |setting| &setting.shown)
    }

    /// A number in the setting's own unit; `None` where this server has no such
    /// setting, or it is no number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(|setting| setting.number)
    }
}

/// Reads some settings; those that the server does not have are left out.
///
/// # Errors
/// When the server cannot be asked.
pub async fn read(session: &Session, names: &[&str]) -> Result<Settings, DbError> {
    let sql = "SELECT name, pg_catalog.current_setting(name), \
               CASE WHEN vartype IN ('integer', 'int64') THEN setting::int8 END, unit \
               FROM pg_catalog.pg_settings WHERE name = ANY ($1::text[])";
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let rows = session.query(sql, &[&names]).await.during(session.side(), "read the settings")?;
    let mut by_name = HashMap::new();
    for row in &rows {
        by_name.insert(row.take(0)?, Setting { shown: row.take(1)?, number: row.take(2)?, unit: row.take(3)? });
    }
    Ok(Settings { by_name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::testing::{Pair, SOURCE_OWNER};

    #[tokio::test]
    async fn a_setting_is_read_as_shown_as_number_and_in_bytes() {
        let pair = Pair::new().await;
        let session = pair.source(SOURCE_OWNER).await;
        session.batch_execute("SET work_mem = '8MB'; SET search_path = 'a, b'").await.unwrap();
        let read = read(&session, &["work_mem", "search_path", "no_such_setting"]).await.unwrap();
        assert_eq!(read.shown("work_mem"), "8MB");
        assert_eq!((read.number("work_mem"), read.number("no_such_setting")), (Some(8192), None));
        assert_eq!(read.get("work_mem").unwrap().bytes(), Some(8 << 20));
        assert_eq!(read.get("search_path").unwrap().number, None);
        assert_eq!(read.get("no_such_setting"), None);
        assert_eq!(read.shown("no_such_setting"), "");
    }

    #[test]
    fn no_limit_is_no_number_of_bytes() {
        let setting = |number, unit: Option<&str>| Setting { shown: String::new(), number, unit: unit.map(Into::into) };
        assert_eq!(setting(Some(-1), Some("MB")).bytes(), None);
        assert_eq!(setting(Some(3), Some("8kB")).bytes(), Some(24_576));
        assert_eq!(setting(Some(3), Some("ms")).bytes(), None);
        assert_eq!(setting(Some(3), None).bytes(), Some(3));
    }
}
