//! What requests say, decoded without a server or an engine: the part of this room that strangers' bytes reach first.
//!
//! The handlers use the same parsers; this is their front for tests and the fuzzer.

use sampan_wire::Fields;

use crate::query::{Query, parse_body, prune_filter};
use crate::respond::{ApiError, bad_field};
use crate::shape;

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The body of a container's create.
    Create,
    /// The bodies of an exec's create and start.
    Exec,
    /// The body of an update.
    Update,
    /// The body of a volume's create.
    Volume,
    /// A query string with filters, numbers, times.
    Query,
    /// A path with its version.
    Path,
}

/// Decodes a part.
///
/// # Errors
/// The message that the client would get.
pub fn decode(part: Part, bytes: &[u8]) -> Result<(), String> {
    decoded(part, bytes).map_err(|error| error.message)
}

fn decoded(part: Part, bytes: &[u8]) -> Result<(), ApiError> {
    let text = || String::from_utf8_lossy(bytes).into_owned();
    match part {
        Part::Create => {
            let request = shape::create::parse(&parse_body(bytes)?, None, "")?;
            drop((shape::host::show(&request.host, true).print(), shape::create::show(&request.config).print()));
        }
        Part::Exec => {
            let fields = parse_body(bytes)?;
            drop((shape::create::exec(&fields).map_err(bad_field)?, shape::create::exec_start(&fields).map_err(bad_field)?));
        }
        Part::Update => drop(update(&parse_body(bytes)?)?),
        Part::Volume => drop(shape::image::volume_request(&parse_body(bytes)?).map_err(bad_field)?),
        Part::Query => {
            let query = Query::parse(&text());
            let filters = query.filters()?;
            drop((prune_filter(&filters)?, query.truth("all"), query.number("t")?));
            for key in ["since", "until"] {
                crate::query::moment(query.text(key))?;
            }
        }
        Part::Path => {
            let text = text();
            let (_, rest) = crate::server::version(&text)?;
            drop(crate::query::percent_decode(rest));
        }
    }
    Ok(())
}

/// The body of an update: limits, and the restart policy when one is named.
pub(crate) fn update(fields: &Fields) -> Result<(sampan_engine::model::Resources, Option<sampan_engine::model::RestartPolicy>), ApiError> {
    let resources = shape::host::resources(fields)?;
    let restart = fields.object("RestartPolicy").map_err(bad_field)?;
    let named = !restart.text("Name").map_err(bad_field)?.is_empty();
    Ok((resources, if named { Some(shape::host::restart(&restart)?) } else { None }))
}
