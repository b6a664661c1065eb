//! Sessions for looks at either side: each is kept for the next look, as a new one costs
//! several round trips, and the server a process that has read nothing of its catalog.
//!
//! Invariant: what sets anything, locks or begins a transaction has a session of its own.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Context;
use crate::config::ConnInfo;
use crate::session::Session;
use crate::wire::WireError;

/// How long an idle one is kept: what lies between may have forgotten it later.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The idle session of a side, and since when it is.
#[derive(Default)]
pub(super) struct Idle(Mutex<Option<(Arc<Session>, Instant)>>);

/// A session that goes back when it is dropped.
pub(super) struct Looking<'c> {
    session: Arc<Session>,
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
            _ => Arc::new(Session::connect(info, name).await?),
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

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        if let Ok(mut kept) = self.place.0.lock()
            && !self.session.is_closed()
        {
            *kept = Some((Arc::clone(&self.session), Instant::now()));
        }
    }
}
