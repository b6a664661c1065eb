//! A publication that is gone, or was for a while: before PostgreSQL 18 the source
//! decodes nothing then, with the catalog as it was at each change; 18 goes on
//! without it, and what it lost is noticed when what is published is compared.
//!
//! Invariant: nothing is skipped. The way on is a copy of all tables
//! (`resync '*'`), behind which the stream begins ([`super::resync`]).
//!
//! Source: `LoadPublications` in `src/backend/replication/pgoutput/pgoutput.c`.

use tracing::debug;

use super::receiver::ReceiverError;
use super::{Context, Error};
use crate::catalog;
use crate::catalog::publication::AllTables;
use crate::catalog::tables::Detail;
use crate::config::publications::{Names, Publications};
use crate::fault::sqlstate;
use crate::membership::{self, publishing};
use crate::session::Session;
use crate::state::State;
use crate::state::migration::Migration;

/// The first release that decodes without a publication that it was asked for.
const DECODES_WITHOUT: i32 = 180_000;

/// Before a stream begins: a source that could not decode is not asked to.
///
/// # Errors
/// [`Error::PublicationGone`] with what leads out of it.
pub(super) async fn require_there(
    ctx: &Context,
    state: &State,
    migration: &Migration,
    source: &Session,
) -> Result<(), Error> {
    if source.version() >= DECODES_WITHOUT {
        return Ok(());
    }
    match missing(ctx, state, migration, source).await? {
        Some((missing, sql)) => Err(Error::PublicationGone { publications: missing, create: Some(sql), source: None }),
        None => Ok(()),
    }
}

/// What ended a stream, with what leads out of it if it was that; as it is when the
/// source cannot be asked.
pub(super) async fn or_gone(ctx: &Context, state: &State, migration: &Migration, error: Error) -> Error {
    let is_undefined = matches!(&error, Error::Receiver(ReceiverError::Wire(error))
        if error.sqlstate() == Some(sqlstate::UNDEFINED_OBJECT));
    if !is_undefined {
        return error;
    }
    let asked = async {
        let source = ctx.source().await?;
        missing(ctx, state, migration, &source).await
    };
    let source = Some(Box::new(error));
    match asked.await {
        Ok(Some((publications, sql))) => Error::PublicationGone { publications, create: Some(sql), source },
        Ok(None) => Error::PublicationGone { publications: migration.publications.clone(), create: None, source },
        Err(unasked) => {
            debug!(error = %unasked, "cannot ask the source for the publication");
            Error::PublicationGone { publications: migration.publications.clone(), create: None, source }
        }
    }
}

/// Those of the migration's that are not there, with the SQL that creates them for
/// all that takes part.
async fn missing(
    ctx: &Context,
    state: &State,
    migration: &Migration,
    source: &Session,
) -> Result<Option<(Publications, String)>, Error> {
    let found = catalog::publication::find(source, migration.publications.names()).await?;
    let is_gone = |name: &&String| !found.iter().any(|publication| publication.name == **name);
    let names: Vec<String> = migration.publications.names().iter().filter(is_gone).cloned().collect();
    let Some(gone) = Names::new(names) else { return Ok(None) };
    let tables = membership::of(source, &ctx.settings.filter, state, Detail::Outline).await?;
    let all = if migration.publishes_all_tables { AllTables::Yes } else { AllTables::No };
    let gone = Publications::Existing(gone);
    let sql: Vec<String> = gone.names().iter().map(|name| publishing::create_sql(name, &tables, all)).collect();
    Ok(Some((gone, sql.join(" "))))
}
