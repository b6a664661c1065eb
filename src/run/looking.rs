//! Sessions for looks at either side: each is kept for the next look, as a new one costs
//! several round trips, and the server a process that has read nothing of its catalog.
//!
//! Invariant: what sets anything, or holds a lock or a transaction, has a session of its own;
//! and a session is kept only by who has come to the end with it, so that none is left in a
//! statement that was given up, or in a transaction that has failed.

use std::ops::Deref;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Context;
use crate::config::ConnInfo;
use crate::session::Session;
use crate::wire::WireError;

/// How long an idle one is kept: what lies between may have forgotten it later.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The idle session of a side, and since when it is.
#[derive(Default)]
pub(super) struct Idle(Mutex<Option<(Session, Instant)>>);

/// A session that is kept where its user says so ([`Looking::done`]).
pub(super) struct Looking<'c> {
    session: Session,
    place: &'c Idle,
}

impl Context {
    /// A session that looks at the source.
    ///
    /// # Errors
    /// [`WireError`] when no host lets us in.
    pub(super) async fn source(&self) -> Result<Looking<'_>, WireError> {
        self.idle_source.lend(&self.settings.source, &self.settings.name).await
    }

    /// A session that looks at the target.
    ///
    /// # Errors
    /// [`WireError`] when no host lets us in.
    pub(super) async fn target(&self) -> Result<Looking<'_>, WireError> {
        self.idle_target.lend(&self.settings.target, &self.settings.name).await
    }
}

impl Idle {
    async fn lend(&self, info: &ConnInfo, name: &str) -> Result<Looking<'_>, WireError> {
        let kept = self.0.lock().ok().and_then(|mut kept| kept.take());
        let session = match kept {
            Some((session, since)) if !session.is_closed() && since.elapsed() < KEPT_FOR => session,
            _ => Session::connect(info, name).await?,
        };
        Ok(Looking { session, place: self })
    }
}

impl Deref for Looking<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Looking<'_> {
    /// Leaves the session to the next one that looks.
    pub(super) fn done(self) {
        if let Ok(mut kept) = self.place.0.lock() {
            *kept = Some((self.session, Instant::now()));
        }
    }
}
