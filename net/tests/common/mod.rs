//! A plane for decoders: it hands out what arrives in pieces, and receives into the pages that it is lent.

use highwater_net::Lent;
use highwater_runtime::buf::AlignedBuf;

/// What cuts a connection's bytes into requests.
pub(crate) trait Decodes {
    type Violation;

    fn lend(&mut self) -> Option<Lent>;
    fn give_back(&mut self, pages: AlignedBuf);
    fn is_inside(&self) -> bool;
    /// The next request in words, if there is a whole one; room that is wanted is granted.
    fn next_in_words(&mut self, data: &mut &[u8]) -> Result<Option<String>, Self::Violation>;
}

/// What `decoder` makes of `bytes`, which come in `pieces` where they are not received as the decoder wants them.
pub(crate) fn decode<D: Decodes>(
    decoder: &mut D,
    bytes: &[u8],
    pieces: &[usize],
) -> (Vec<String>, Result<(), D::Violation>) {
    let mut told = Vec::new();
    let mut rest = bytes;
    let mut pieces = pieces.iter().copied().cycle();
    while !rest.is_empty() {
        let mut given = if let Some(mut lent) = decoder.lend() {
            let take = rest.len().min(lent.end - lent.filled);
            lent.pages[lent.filled..lent.filled + take].copy_from_slice(&rest[..take]);
            rest = &rest[take..];
            if lent.filled + take < lent.end {
                assert!(decoder.is_inside());
                return (told, Ok(()));
            }
            decoder.give_back(lent.pages);
            &[][..]
        } else {
            let (given, left) = rest.split_at(pieces.next().unwrap_or(1).clamp(1, rest.len()));
            rest = left;
            given
        };
        loop {
            match decoder.next_in_words(&mut given) {
                Ok(None) => break,
                Ok(Some(request)) => told.push(request),
                Err(violation) => return (told, Err(violation)),
            }
        }
        assert!(given.is_empty(), "everything that was given is used or kept");
    }
    (told, Ok(()))
}
