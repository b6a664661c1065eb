//! Types that were altered on the source while changes or rows came.
//!
//! Invariant: a value that the target's type does not take is told with what makes the types
//! of the tables there those of the source, where they are not.

use tracing::debug;

use crate::apply::ApplyError;
use crate::copy::{self, CopyError};
use crate::fault::sqlstate;
use crate::membership::gap::Gap;
use crate::run::{Context, Error};
use crate::session::Session;
use crate::state::State;

/// What ended a stream or a copy; a value that was refused as no value of its type, with the types that
/// differ.
pub(in crate::run) async fn or_altered(ctx: &Context, state: &State, error: Error) -> Error {
    match &error {
        Error::Apply(ApplyError::Refused { error, .. }) if error.sqlstate == sqlstate::INVALID_TEXT_REPRESENTATION => {}
        Error::Copy(CopyError::Db(error)) if error.sqlstate() == Some(sqlstate::INVALID_TEXT_REPRESENTATION) => {}
        _ => return error,
    }
    match altered(ctx, state).await {
        Ok(gaps) if gaps.is_empty() => error,
        Ok(gaps) => Error::Unlike { gaps, source: Box::new(error) },
        Err(unasked) => {
            debug!(error = %unasked, "cannot look which types were altered on the source");
            error
        }
    }
}

/// Tables with columns of types that differ.
async fn altered(ctx: &Context, state: &State) -> Result<Vec<Gap>, Error> {
    let (settings, name) = (&ctx.settings, &ctx.settings.name);
    let (source, target) =
        tokio::try_join!(Session::connect(&settings.source, name), Session::connect(&settings.target, name))?;
    Ok(copy::types::differ(&ctx.copy(state), (&source, &target)).await?)
}
