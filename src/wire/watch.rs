//! The frames that pass on to a driver, which has no limits of its own.
//!
//! Invariant: the bytes are only looked at, never changed or kept; whatever pieces
//! they come in, the verdict is the one of [`super::frame::body_bytes`] on every
//! header. What comes unasked between two answers is bounded.
//!
//! Source: `PostgresCodec` of tokio-postgres 0.7.18, which gathers a frame of any
//! length, and `Connection::poll_read` there, which keeps every parameter.

use super::frame::{HEADER_BYTES, MAX_PARAMETER_BYTES, Stage, body_bytes};
use super::{Peer, WireError};

/// Where in the frames the next byte lies.
pub(super) struct Watch {
    peer: Peer,
    /// Of the header at hand, as far as it has come.
    header: Vec<u8>,
    /// What is still to come of the body at hand, in bytes.
    unread: usize,
    /// Of the parameters that were reported since the last ReadyForQuery.
    parameter_bytes: usize,
}

impl Watch {
    pub(super) fn new(peer: Peer) -> Self {
        Watch { peer, header: Vec::with_capacity(HEADER_BYTES), unread: 0, parameter_bytes: 0 }
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// `FrameTooLarge` and `Protocol`; the connection is of no more use then.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Result<(), WireError> {
        while !bytes.is_empty() {
            let body = bytes.len().min(self.unread);
            self.unread -= body;
            bytes = bytes.get(body..).unwrap_or_default();
            let missing = bytes.len().min(HEADER_BYTES - self.header.len());
            let (piece, rest) = bytes.split_at(missing);
            self.header.extend_from_slice(piece);
            bytes = rest;
            if let &[tag, a, b, c, d] = self.header.as_slice() {
                self.header.clear();
                self.unread = body_bytes(&self.peer, Stage::Ready, tag, u32::from_be_bytes([a, b, c, d]))?;
                self.count(tag)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, tag: u8) -> Result<(), WireError> {
        match tag {
            b'Z' => self.parameter_bytes = 0,
            b'S' => self.parameter_bytes += HEADER_BYTES + self.unread,
            _ => {}
        }
        if self.parameter_bytes > MAX_PARAMETER_BYTES {
            let what = format!("it reports parameters without end, more than {MAX_PARAMETER_BYTES} bytes of them");
            return Err(WireError::Protocol { peer: self.peer.clone(), what });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Side;
    use crate::wire::fake::frame;
    use crate::wire::frame::{MAX_FRAME_BYTES, MAX_UNASKED_BYTES};

    fn watch() -> Watch {
        Watch::new(Peer { side: Side::Source, host: "h:1".into() })
    }

    /// What is said of the bytes in these pieces.
    fn verdict(bytes: &[u8], ends: &[usize]) -> Option<String> {
        let mut watch = watch();
        let mut begin = 0;
        for end in ends.iter().copied().chain([bytes.len()]) {
            let end = end.clamp(begin, bytes.len());
            if let Err(error) = watch.pass(&bytes[begin..end]) {
                return Some(error.to_string());
            }
            begin = end;
        }
        None
    }

    fn header(tag: u8, length: u32) -> Vec<u8> {
        [&[tag][..], &length.to_be_bytes()].concat()
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_verdict(
            bodies in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            end in prop::option::of((any::<u8>(), prop_oneof![0u32..8, 0x00ff_fff0u32..0x0100_0010, any::<u32>()])),
            mut ends in prop::collection::vec(0usize..700, 0..30),
        ) {
            let mut bytes = bodies.iter().map(|(tag, body)| frame(*tag, body)).collect::<Vec<_>>().concat();
            bytes.extend(end.into_iter().flat_map(|(tag, length)| header(tag, length)));
            ends.sort_unstable();
            let whole = verdict(&bytes, &[]);
            prop_assert_eq!(&verdict(&bytes, &ends), &whole);
            let one_by_one: Vec<usize> = (0..bytes.len()).collect();
            prop_assert_eq!(&verdict(&bytes, &one_by_one), &whole);
            let expected = end.is_some_and(|(tag, length)| {
                let limit = if b"NSAE".contains(&tag) { MAX_UNASKED_BYTES } else { MAX_FRAME_BYTES };
                length < 4 || length > limit
            });
            prop_assert_eq!(whole.is_some(), expected);
        }
    }

    #[test]
    fn parameters_are_bounded_between_two_answers() {
        let mut watch = watch();
        let report = frame(b'S', &[b'x'; 1000]);
        for _ in 0..5 {
            for _ in 0..MAX_PARAMETER_BYTES / report.len() {
                watch.pass(&report).unwrap();
            }
            watch.pass(&frame(b'Z', b"I")).unwrap();
        }
        let refused = (0..=MAX_PARAMETER_BYTES / report.len()).find_map(|_| watch.pass(&report).err());
        assert!(refused.unwrap().to_string().contains("without end"));
    }
}
