//! Types that were altered on the source while changes or rows came.
//!
//! Invariant: a value that the target's type does not take, or columns that are to be added
//! there, are told with what makes the types of the tables there those of the source, where
//! they are not.

use tracing::debug;

use crate::apply::ApplyError;
use crate::copy::{self, CopyError};
use crate::fault::sqlstate;
use crate::membership::gap::Gap;
use crate::run::{Context, Error};
use crate::session::Session;
use crate::state::State;

/// How a server refuses a value for its type, or for one within it.
const OF_TYPES: [&str; 3] = [
    sqlstate::INVALID_TEXT_REPRESENTATION,
    sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
    sqlstate::STRING_DATA_RIGHT_TRUNCATION,
];

/// What ended a stream or a copy; a value that was refused as no value of its type, or columns
/// that are others, with the types that differ.
pub(in crate::run) async fn or_altered(ctx: &Context, state: &State, error: Error) -> Error {
    let sqlstate = match &error {
        Error::Apply(ApplyError::Refused { error, .. }) => Some(error.sqlstate.as_str()),
        Error::Copy(CopyError::Db(error)) => error.sqlstate(),
        _ => None,
    };
    if !error.is_of_columns() && !sqlstate.is_some_and(|sqlstate| OF_TYPES.contains(&sqlstate)) {
        return error;
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
