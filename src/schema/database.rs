//! The database's own properties: settings (`search_path`!), comment,
//! privileges, and the comment on the schema public. They come in at the end, as
//! our own sessions and others' shall not change before.
//!
//! Invariant: what the role may not give is known before anything is created:
//! each statement is tried in a transaction that is rolled back. Those that are
//! refused are named with their SQL and never wait for an end they would spoil.
//!
//! Source: `dumpDatabase` and `makeAlterConfigCommand` in `src/bin/pg_dump`.

use super::{SchemaError, batch};
use crate::catalog::database::{self, DatabasePrivilege, DatabaseSetting};
use crate::catalog::roles;
use crate::config::{Keep, Settings};
use crate::session::{DbError, Session};
use crate::sql::{TableName, ident, literal};
use crate::state::deferred::{Deferred, DeferredKind, Follows};

/// Settings whose value is a list of names that is kept quoted
/// (`variable_is_guc_list_quote` in `src/bin/pg_dump/dumputils.c`).
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// What a source is fenced with is not meant for the target.
const NOT_CARRIED: [&str; 1] = ["default_transaction_read_only"];

/// What the comment on the schema public is when nobody has given it one.
const STANDARD: &str = "standard public schema";

/// The statements that the target's role may, and those that it may not.
#[derive(Debug, Default)]
pub(crate) struct OfDatabase {
    /// To be carried at the end.
    pub(crate) ours: Vec<Deferred>,
    /// An administrator's, each with the server's words.
    pub(crate) administrators: Vec<(String, String)>,
}

/// What the target's database lacks of the source's. Tries it on `target`, which
/// must be in no transaction.
///
/// # Errors
/// When a catalog cannot be read, or a connection is lost.
pub(crate) async fn read(settings: &Settings, source: &Session, target: &Session) -> Result<OfDatabase, SchemaError> {
    let mut found = OfDatabase { administrators: of_roles(source, target).await?, ..OfDatabase::default() };
    let wanted = statements(settings, source, target).await?;
    if wanted.is_empty() {
        return Ok(found);
    }
    batch(target, "BEGIN; SET LOCAL lock_timeout = '5s'", "try the database's properties").await?;
    for (object, sql) in wanted {
        batch(target, "SAVEPOINT walferry", "try the database's properties").await?;
        let tried = batch(target, &sql, &format!("try the {object}")).await;
        batch(target, "ROLLBACK TO SAVEPOINT walferry", "try the database's properties").await?;
        match tried {
            Ok(()) => {
                let table = TableName::new("", "");
                let kind = DeferredKind::Other;
                found.ours.push(Deferred {
                    ordinal: 0,
                    kind,
                    table,
                    object,
                    sql,
                    is_restored: false,
                    follows: Follows::Nothing,
                });
            }
            Err(error) => found.administrators.push((sql, error.words())),
        }
    }
    batch(target, "ROLLBACK", "end the trial of the database's properties").await?;
    Ok(found)
}

/// Settings of roles that both servers have. They hold in all databases of the target's
/// server, so they are left to whoever runs that.
async fn of_roles(source: &Session, target: &Session) -> Result<Vec<(String, String)>, DbError> {
    let (here, there) = (database::role_settings(source).await?, database::role_settings(target).await?);
    let missing: Vec<&DatabaseSetting> = here.difference(&there).filter(is_carried).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let known = roles::names(target).await?;
    let named = |setting: &&DatabaseSetting| {
        let role = setting.role.as_ref().filter(|role| known.contains(*role))?;
        let words = format!("setting {} of the role {role} in all databases", setting.name);
        Some((format!("ALTER ROLE {} SET {};", ident(role), value(setting)), words))
    };
    Ok(missing.iter().filter_map(named).collect())
}

fn is_carried(setting: &&DatabaseSetting) -> bool {
    !NOT_CARRIED.contains(&setting.name.as_str())
}

async fn statements(settings: &Settings, source: &Session, target: &Session) -> Result<Vec<(String, String)>, DbError> {
    let (here, there) = (database::read(source).await?, database::read(target).await?);
    let name = ident(&there.name);
    let mut wanted = Vec::new();
    let present = database::settings(target).await?;
    for setting in database::settings(source).await?.difference(&present).filter(is_carried) {
        let of = match &setting.role {
            None => format!("DATABASE {name}"),
            Some(role) => format!("ROLE {} IN DATABASE {name}", ident(role)),
        };
        wanted
            .push((format!("setting {} of the database", setting.name), format!("ALTER {of} SET {};", value(setting))));
    }
    if settings.acl == Keep::Yes {
        let (here, there) = (database::privileges(source).await?, database::privileges(target).await?);
        let grants = here.difference(&there).map(|privilege| grant(privilege, &name));
        let of_everybody = |privilege: &&DatabasePrivilege| privilege.grantee.is_none();
        let revokes = there.difference(&here).filter(of_everybody).map(|privilege| {
            (
                format!("privilege {} of the database", privilege.privilege),
                format!("REVOKE {} ON DATABASE {name} FROM PUBLIC;", privilege.privilege),
            )
        });
        wanted.extend(grants.chain(revokes));
    }
    if let Some(comment) = here.comment.filter(|comment| Some(comment) != there.comment.as_ref()) {
        wanted.push((
            "comment on the database".to_owned(),
            format!("COMMENT ON DATABASE {name} IS {};", literal(&comment)),
        ));
    }
    let own = here
        .comment_on_public
        .filter(|comment| comment != STANDARD && Some(comment) != there.comment_on_public.as_ref());
    if let Some(comment) = own {
        wanted.push((
            "comment on the schema public".to_owned(),
            format!("COMMENT ON SCHEMA public IS {};", literal(&comment)),
        ));
    }
    Ok(wanted)
}

/// "name TO value" as SQL.
fn value(setting: &DatabaseSetting) -> String {
    let name = setting.name.split('.').map(ident).collect::<Vec<_>>().join(".");
    let is_list = LISTS.contains(&setting.name.as_str());
    match setting.value.as_str() {
        "" | "\"\"" if is_list => format!("{name} TO ''"),
        list if is_list => format!("{name} TO {list}"),
        value => format!("{name} TO {}", literal(value)),
    }
}

fn grant(privilege: &DatabasePrivilege, name: &str) -> (String, String) {
    let to = privilege.grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), ident);
    let option = if privilege.is_grantable { " WITH GRANT OPTION" } else { "" };
    let sql = format!("GRANT {} ON DATABASE {name} TO {to}{option};", privilege.privilege);
    (format!("privilege {} of the database", privilege.privilege), sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_stays_a_list_and_a_value_is_a_string() {
        let sql =
            |name: &str, text: &str| value(&DatabaseSetting { role: None, name: name.into(), value: text.into() });
        assert_eq!(sql("search_path", "\"$user\", public"), "\"search_path\" TO \"$user\", public");
        assert_eq!(sql("search_path", "\"\""), "\"search_path\" TO ''");
        assert_eq!(sql("work_mem", "1'MB"), "\"work_mem\" TO '1''MB'");
        assert_eq!(sql("my.own", "x"), "\"my\".\"own\" TO 'x'");
    }
}
