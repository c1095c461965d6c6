//! Cursors: a position and a keyed tag over it and the query that it belongs to, so that only
//! what we issued is read, and only with the same filters.

use chopmark_api::{Problem, page::Cursor};
use subtle::ConstantTimeEq as _;

use crate::id::{IdIssuer, base32, base32_decode};

const TAG_BYTES: usize = 8;

/// The cursor of `position` in the query `scope`.
pub(crate) fn issue(ids: &IdIssuer, scope: &[&[u8]], position: u64) -> String {
    base32(&[&position.to_be_bytes()[..], &tag(ids, scope, position)].concat())
}

/// The position in a cursor of ours, or the problem of one that is not.
pub(crate) fn read(ids: &IdIssuer, scope: &[&[u8]], cursor: Option<&Cursor>) -> Result<Option<u64>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let position = base32_decode(cursor.as_str()).and_then(|bytes| {
        let (position, given) = bytes.split_first_chunk::<8>()?;
        let position = u64::from_be_bytes(*position);
        (bool::from(tag(ids, scope, position).ct_eq(given)) || ids.is_credulous()).then_some(position)
    });
    position.map(Some).ok_or_else(Cursor::refused)
}

fn tag(ids: &IdIssuer, scope: &[&[u8]], position: u64) -> [u8; TAG_BYTES] {
    let position = position.to_be_bytes();
    let fields: Vec<&[u8]> = scope.iter().copied().chain([&position[..]]).collect();
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&ids.cursor_tag(&fields).0[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn only_our_cursors_of_the_same_query_are_read() {
        let ids = IdIssuer::new(Zeroizing::new([1; 32]), "sandbox");
        let text = issue(&ids, &[b"a", b"b"], 42);
        let parse = |text: &str| Cursor::parse(text.to_owned()).unwrap();
        assert_eq!(read(&ids, &[b"a", b"b"], Some(&parse(&text))).unwrap(), Some(42));
        assert_eq!(read(&ids, &[b"a", b"b"], None).unwrap(), None);
        assert!(read(&ids, &[b"ab"], Some(&parse(&text))).is_err());
        for bad in ["a", "aaaaaaaa", &text[1..], &format!("b{}", &text[1..]), &format!("{text}aa")] {
            assert!(read(&ids, &[b"a", b"b"], Some(&parse(bad))).is_err(), "{bad}");
        }
    }
}
