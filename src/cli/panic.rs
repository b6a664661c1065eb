//! A panic, in whatever thread or task, is a bug: it ends the process with 1
//! and says what is to be done, as any other error does.
//!
//! Invariant: no part that panicked is waited for by the others, and the message
//! has no value of a row: what a panic quotes is cut off.

use std::any::Any;
use std::panic::{self, Location};

use super::failure::Failure;
use super::output;
use crate::config::LogFormat;
use crate::fault::Exit;

/// Ends the process at the first panic from now on.
pub(super) fn end_on_panic(format: LogFormat) {
    panic::set_hook(Box::new(move |info| {
        let failure = Failure::Panicked { place: place(info.location()), words: words(info.payload()) };
        let _its_code = output::failure(&failure, format);
        std::process::exit(i32::from(Exit::Bug.code()));
    }));
}

fn place(location: Option<&Location<'_>>) -> String {
    location.map_or_else(|| "an unknown place".to_owned(), |at| format!("{}:{}", at.file(), at.line()))
}

/// The panic's own words, up to what they quote: the text of a value may follow.
fn words(payload: &(dyn Any + Send)) -> String {
    let text = match (payload.downcast_ref::<&'static str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.split(['`', '\'', '"']).next().unwrap_or_default(),
        (None, None) => "",
    };
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_quotes_is_not_shown() {
        let sliced = "byte index 1 is not a char boundary; it is inside 'é' (bytes 0..2) of `épargne 4711`".to_owned();
        let said = words(&sliced as &(dyn Any + Send));
        assert_eq!(said, "byte index 1 is not a char boundary; it is inside");
        assert_eq!(words(&"of no use \"here\"" as &(dyn Any + Send)), "of no use \"here\"");
        assert_eq!(words(&7 as &(dyn Any + Send)), "");
    }
}
