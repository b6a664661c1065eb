//! How long an answer is waited for, in the one place where that is decided for
//! ordinary sessions.
//!
//! ```text
//! asked ── LOOK_EVERY ── "still waiting" ── does it let us in? ─┬─ yes: it is at work, wait on
//!                                                               └─ twice no: the session is lost
//! ```
//!
//! A server may rightly take hours: it builds an index, or an ALTER waits for its lock.
//! So what bounds a statement is not its duration but whether the server lives, and
//! that is asked by a login beside it. Who asks nothing that may take long says so
//! ([`super::Session::answer_within`]), and is bounded by the clock.
//!
//! Invariant: no statement of an ordinary session waits for a server that is gone, and
//! none that waits for long waits without a word. Rows by COPY are not waited for here;
//! the sockets' own timeouts see to a host that is gone (`wire/stream.rs`).

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::config::ConnInfo;
use crate::wire::{Connection, Purpose};

/// After how long it is looked whether the server lives, and how often from then on: a
/// login costs it little, and a statement over catalogs is answered long before.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Logins in a row that nobody answers before the server counts as gone: a single one
/// may fall into a hiccup of the network.
const LOOKS_IN_VAIN: u32 = 2;

/// What a session needs to know to wait.
pub(super) struct Wait {
    info: ConnInfo,
    application_name: String,
    at_most: OnceLock<Duration>,
    look_every: Duration,
}

impl Wait {
    pub(super) fn new(info: &ConnInfo, application_name: &str) -> Self {
        let (info, application_name) = (info.clone(), application_name.to_owned());
        Wait { info, application_name, at_most: OnceLock::new(), look_every: LOOK_EVERY }
    }

    /// Waits no longer than this from now on; the first bound holds.
    pub(super) fn at_most(&self, bound: Duration) {
        self.at_most.get_or_init(|| bound);
    }

    /// What the work comes to, or in words why it will come to nothing.
    pub(super) async fn answer<T>(&self, work: impl Future<Output = T>) -> Result<T, String> {
        // On the heap: a login is a large future, and every statement has this one.
        let given_up = Box::pin(self.given_up());
        tokio::select! {
            biased;
            outcome = work => Ok(outcome),
            why = given_up => Err(why),
        }
    }

    /// Ends when the server is given up.
    async fn given_up(&self) -> String {
        match self.at_most.get() {
            None => self.gone().await,
            Some(bound) => timeout(*bound, self.gone()).await.unwrap_or_else(|_| silence(*bound)),
        }
    }

    /// Ends when the server is gone, and says meanwhile that it is waited for.
    async fn gone(&self) -> String {
        let begun = Instant::now();
        let (mut in_vain, mut said_after) = (0, Duration::ZERO);
        while in_vain < LOOKS_IN_VAIN {
            sleep(self.look_every).await;
            let waited = begun.elapsed();
            // After half a minute, one, two, four: a long wait is said, but not for ever anew.
            if waited >= said_after * 2 {
                said_after = waited;
                tracing::info!("still waiting for the answer of the {}, {} s", self.info.side, waited.as_secs());
            }
            in_vain = if self.server_lives().await { 0 } else { in_vain + 1 };
        }
        format!("{}, and it lets nobody in any more", silence(begun.elapsed()))
    }

    /// Whether a server answers a login, be it with a refusal.
    async fn server_lives(&self) -> bool {
        match Connection::connect(&self.info, Purpose::Session, &self.application_name).await {
            Ok(_) => true,
            Err(error) => error.server().is_some(),
        }
    }
}

fn silence(after: Duration) -> String {
    format!("no answer within {} s; see whether the server and what lies before it are alive", after.as_secs())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::config::Side;
    use crate::testing::{conninfo, host};
    use crate::wire::fake;

    /// A server that says this to everybody who comes, and how many came.
    async fn server(words: Vec<u8>) -> (Wait, watch::Receiver<u32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (came, count) = watch::channel(0);
        tokio::spawn(async move {
            let mut all = Vec::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                socket.write_all(&words).await.unwrap();
                all.push(socket);
                came.send_modify(|count| *count += 1);
            }
        });
        let mut info = conninfo(Side::Target, host("127.0.0.1", port), "u", "d");
        info.connect_timeout = Duration::from_millis(50);
        (Wait { look_every: Duration::from_millis(5), ..Wait::new(&info, "walferry") }, count)
    }

    #[tokio::test]
    async fn a_server_that_lets_nobody_in_is_waited_for_no_longer() {
        let (wait, count) = server(Vec::new()).await;
        let words = timeout(Duration::from_secs(30), wait.answer(pending::<()>())).await.unwrap().unwrap_err();
        assert!(words.contains("lets nobody in any more"), "{words}");
        assert_eq!(*count.borrow(), LOOKS_IN_VAIN);
    }

    #[tokio::test]
    async fn a_server_that_answers_logins_is_waited_for_as_long_as_it_takes() {
        let (wait, mut count) = server(fake::error("FATAL", "53300", "sorry, too many clients already")).await;
        let work = async { count.wait_for(|count| *count > 2 * LOOKS_IN_VAIN).await.is_ok() };
        assert_eq!(timeout(Duration::from_secs(30), wait.answer(work)).await.unwrap(), Ok(true));
    }

    #[tokio::test]
    async fn a_bound_holds_however_alive_the_server_is() {
        let (wait, _count) = server(fake::error("FATAL", "53300", "sorry, too many clients already")).await;
        wait.at_most(Duration::from_millis(100));
        let words = timeout(Duration::from_secs(30), wait.answer(pending::<()>())).await.unwrap().unwrap_err();
        assert!(words.contains("no answer within") && !words.contains("nobody"), "{words}");
    }
}
