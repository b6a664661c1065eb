//! What a server says unasked, in our log.
//!
//! Invariant: a connection's notices take so many lines a minute and no more, each
//! no longer than a line may be; what is left out is counted and said. Nothing of a
//! server's words reaches the log that a terminal would obey.
//!
//! Source: `defaultNoticeProcessor` of `src/interfaces/libpq/fe-connect.c`, which
//! shows all of them; a flood of them made 85 MB of log in four seconds.

use std::time::{Duration, Instant};

use tracing::Level;

use super::Peer;
use crate::border::visible;

/// Lines of a connection in each [`WINDOW`]: a restore of a schema brings some, a row
/// trigger that talks brings one for each row.
const LINES: u32 = 30;

/// See [`LINES`].
const WINDOW: Duration = Duration::from_secs(60);

/// Characters of a message that are shown: PostgreSQL's own take some hundred.
const SHOWN_CHARACTERS: usize = 500;

/// The notices of one connection.
#[derive(Debug)]
pub(super) struct Notices {
    peer: Peer,
    rate: Rate,
}

impl Notices {
    pub(super) fn new(peer: Peer) -> Self {
        Notices { peer, rate: Rate { since: Instant::now(), shown: 0, withheld: 0 } }
    }

    /// Logs a notice, or counts it.
    pub(super) fn take(&mut self, level: Level, (severity, sqlstate): (&str, &str), message: &str) {
        let is_heard = match level {
            Level::WARN => tracing::enabled!(Level::WARN),
            Level::INFO => tracing::enabled!(Level::INFO),
            _ => tracing::enabled!(Level::DEBUG),
        };
        if !is_heard {
            return;
        }
        let (is_shown, withheld) = self.rate.admit(Instant::now());
        self.say(withheld);
        if !is_shown {
            return;
        }
        let (peer, severity, sqlstate, message) = (&self.peer, plain(severity), plain(sqlstate), plain(message));
        match level {
            Level::WARN => tracing::warn!(%peer, %sqlstate, "server {severity}: {message}"),
            Level::INFO => tracing::info!(%peer, %sqlstate, "server {severity}: {message}"),
            _ => tracing::debug!(%peer, %sqlstate, "server {severity}: {message}"),
        }
    }

    fn say(&self, withheld: u64) {
        if withheld > 0 {
            let notices = crate::words::count(withheld, "more notice");
            let peer = &self.peer;
            tracing::info!("{notices} of the {peer} not shown: a minute has room for {LINES}");
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.say(self.rate.withheld);
    }
}

/// How many are shown in the window at hand.
#[derive(Debug)]
struct Rate {
    since: Instant,
    shown: u32,
    withheld: u64,
}

impl Rate {
    /// Whether one more is shown; and how many were not in a window that is over.
    fn admit(&mut self, now: Instant) -> (bool, u64) {
        let mut withheld = 0;
        if now.duration_since(self.since) >= WINDOW {
            withheld = self.withheld;
            *self = Rate { since: now, shown: 0, withheld: 0 };
        }
        if self.shown < LINES {
            self.shown += 1;
            return (true, withheld);
        }
        self.withheld += 1;
        (false, withheld)
    }
}

/// A server's words for a line of text, no more than [`SHOWN_CHARACTERS`].
pub(super) fn plain(text: &str) -> String {
    let shown = text.char_indices().nth(SHOWN_CHARACTERS).map_or(text, |(end, _)| text.get(..end).unwrap_or(text));
    let line = visible(shown).into_owned();
    match text.chars().skip(SHOWN_CHARACTERS).count() {
        0 => line,
        more => format!("{line}… ({more} more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_room_for_so_many_notices_and_the_next_one_says_how_many_were_left_out() {
        let begin = Instant::now();
        let mut rate = Rate { since: begin, shown: 0, withheld: 0 };
        let shown = (0..1000).filter(|_| rate.admit(begin).0).count();
        assert_eq!(shown, LINES as usize);
        assert_eq!(rate.admit(begin + WINDOW), (true, 1000 - u64::from(LINES)));
        assert_eq!(rate.admit(begin + WINDOW), (true, 0));
    }

    /// The log of what is done.
    fn logged(work: impl FnOnce()) -> String {
        let log = tempfile::NamedTempFile::new().unwrap();
        let writer = std::sync::Mutex::new(log.reopen().unwrap());
        let subscriber = tracing_subscriber::fmt().with_writer(writer).with_max_level(Level::INFO).finish();
        tracing::subscriber::with_default(subscriber, work);
        std::fs::read_to_string(log.path()).unwrap()
    }

    /// The story: a server that sent notices as fast as it could made 85 MB of log in four
    /// seconds.
    #[test]
    fn a_flood_of_notices_is_some_lines_and_their_number() {
        let peer = Peer { side: crate::config::Side::Source, host: "h:5432".into() };
        let log = logged(|| {
            let mut notices = Notices::new(peer);
            for _ in 0..100_000 {
                notices.take(Level::DEBUG, ("NOTICE", "00000"), "nobody hears it, and it takes nobody's place");
                notices.take(Level::WARN, ("WARNING", "01000"), &"hello ".repeat(1000));
            }
        });
        assert_eq!(log.lines().count(), LINES as usize + 1, "{log}");
        assert!(log.len() < 100_000 && log.contains("99970 more notices of the source (h:5432) not shown"), "{log}");
    }

    #[test]
    fn a_servers_words_are_cut_and_obeyed_by_no_terminal() {
        assert_eq!(plain("a\x1b[2Jb\r\nwhat to do: \u{202e}x"), r#""a\u{1b}[2Jb\r\nwhat to do: \u{202e}x""#);
        assert_eq!(plain("größer"), "größer");
        let long = plain(&"é".repeat(SHOWN_CHARACTERS + 7));
        assert_eq!(long.chars().count(), SHOWN_CHARACTERS + "… (7 more)".chars().count());
    }
}
