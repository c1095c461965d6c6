//! The limits of requests, each with its reason, and the rules of single
//! strings. A rule names the first cause it finds.

use crate::problem::{Arg, Fault, ProblemCode};
use crate::time;

/// Body of an ordinary request: the longest evidence request, every character
/// escaped, has about 70 KiB, and 100 digests to look up about 12 KiB.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// Body of a batch: 1000 items of 4 KiB; a plain one has about 200 bytes.
pub const BATCH_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Items of a batch: large enough to share every cost, small enough that its
/// answer is one page to read.
pub const BATCH_ITEMS_MAX: usize = 1000;
/// Digests looked up in one call: anyone may call it, and each is a look-up with proofs.
pub const VERIFY_ITEMS_MAX: usize = 100;
/// Nesting of objects and arrays: the deepest documented body has four levels.
pub const DEPTH_MAX: usize = 16;
/// Members of one object: the largest documented object has eleven.
pub const MEMBERS_MAX: usize = 64;
/// Characters of an idempotency key: room for two identifiers and a separator.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Characters of a title: a file name is at most 255 bytes.
pub const TITLE_CHARS_MAX: usize = 256;
/// Characters of an external id: room for a URN; order numbers have about 30.
pub const EXTERNAL_ID_CHARS_MAX: usize = 128;
/// Characters of a media type: RFC 6838 allows 127 for either half, and the
/// longest registered one has fewer than 90 in all.
pub const MEDIA_TYPE_CHARS_MAX: usize = 127;
/// Characters of a provenance member: one line of a form.
pub const PROVENANCE_CHARS_MAX: usize = 256;
/// Characters of a provenance member that may be a list or several lines.
pub const PROVENANCE_TEXT_CHARS_MAX: usize = 2000;
/// Size of a file: integers of the ledger stay below 2^53, which every JSON
/// reader holds exactly.
pub const SIZE_MAX: u64 = (1 << 53) - 1;
/// Seconds that `Prefer: wait=N` may hold an answer: below the idle time-out of
/// common proxies.
pub const WAIT_SECONDS_MAX: u32 = 30;
/// Items of a page when the caller does not say.
pub const PAGE_LIMIT_DEFAULT: u16 = 50;
/// Items of a page at most: about 200 KiB of evidence.
pub const PAGE_LIMIT_MAX: u16 = 200;
/// Characters of a cursor: a few keys of an index in Base64.
pub const CURSOR_CHARS_MAX: usize = 512;

/// Characters of a webhook's URL: what common servers and proxies take.
pub const WEBHOOK_URL_CHARS_MAX: usize = 2048;
/// Names in an endpoint's filter: more than there are events.
pub const WEBHOOK_EVENTS_MAX: usize = 32;
/// Seconds that a secret signs on after it was replaced: long enough for a release, short enough for a leak.
pub const WEBHOOK_OVERLAP_SECONDS_MAX: u64 = 7 * 24 * 60 * 60;
/// The same, when the caller does not say.
pub const WEBHOOK_OVERLAP_SECONDS_DEFAULT: u64 = 24 * 60 * 60;

/// Bytes of a search: the longest thing to look for is a domain name (RFC 1035).
pub const SEARCH_BYTES_MAX: usize = 253;

/// The fault of a string that is longer than it may be.
fn check_length(text: &str, limit: usize, code: ProblemCode) -> Result<(), Fault> {
    // A character has at least one byte, so most strings need no counting.
    if text.len() > limit && text.chars().count() > limit {
        return Err(Fault::new(code).limit("limit", limit));
    }
    Ok(())
}

/// One line of text: neither empty nor able to show as other than it is.
pub(crate) fn line<const CHARS_MAX: usize>(text: &str) -> Result<(), Fault> {
    check_text(text, CHARS_MAX, false)
}

/// As [`line`], and may have line breaks and tabs.
pub(crate) fn lines<const CHARS_MAX: usize>(text: &str) -> Result<(), Fault> {
    check_text(text, CHARS_MAX, true)
}

fn check_text(text: &str, limit: usize, breaks: bool) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(ProblemCode::StringEmpty.into());
    }
    check_length(text, limit, ProblemCode::StringTooLong)?;
    let allowed = |c: char| !misleads(c) || (breaks && matches!(c, '\n' | '\r' | '\t'));
    if text.chars().all(allowed) { Ok(()) } else { Err(ProblemCode::StringBadCharacters.into()) }
}

/// Control characters, and the marks that reorder or break a line when shown.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// An idempotency key: visible ASCII, so that it is the same in a header and in
/// a batch item.
pub fn idempotency_key(key: &str) -> Result<(), Fault> {
    let limit = IDEMPOTENCY_KEY_CHARS_MAX;
    check_length(key, limit, ProblemCode::IdempotencyKeyTooLong)?;
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Fault::new(ProblemCode::IdempotencyKeyInvalid).limit("limit", limit));
    }
    Ok(())
}

/// A media type: RFC 6838, section 4.2, in lower case and without parameters.
pub(crate) fn media_type(text: &str) -> Result<(), Fault> {
    let halves = text.split_once('/');
    if text.len() <= MEDIA_TYPE_CHARS_MAX && halves.is_some_and(|(a, b)| is_name(a) && is_name(b)) {
        return Ok(());
    }
    Err(Fault::new(ProblemCode::MediaTypeInvalid).limit("limit", MEDIA_TYPE_CHARS_MAX))
}

/// RFC 6838's restricted-name, in lower case.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.bytes().next().is_some_and(plain) && text.bytes().all(|b| plain(b) || b"!#$&-^_.+".contains(&b))
}

pub(crate) fn moment(text: &str) -> Result<(), Fault> {
    if time::is_rfc3339(text) { Ok(()) } else { Err(ProblemCode::TimeMalformed.into()) }
}

/// The state of a delivery that has ended.
pub(crate) fn delivery_state(text: &str) -> Result<(), Fault> {
    if ["delivered", "dead"].contains(&text) { Ok(()) } else { Err(ProblemCode::WebhookStateUnknown.into()) }
}

pub(crate) fn digest(text: &str) -> Result<(), Fault> {
    text.parse::<crate::digest::Hash32>().map(|_| ())
}

pub(crate) fn algorithm(text: &str) -> Result<(), Fault> {
    text.parse::<crate::digest::Algorithm>().map(|_| ())
}

pub(crate) fn evidence_id(text: &str) -> Result<(), Fault> {
    use crate::ids::EvidenceId;
    text.parse::<EvidenceId>()
        .map(|_| ())
        .map_err(|_| Fault::new(ProblemCode::IdMalformed).with("expected", Arg::Name(EvidenceId::FORM)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), Fault>) -> Option<ProblemCode> {
        result.err().map(|fault| fault.code)
    }

    #[test]
    fn lines_are_counted_in_characters() {
        assert_eq!(code(line::<4>("合同扫描")), None);
        assert_eq!(code(line::<4>("合同扫描件")), Some(ProblemCode::StringTooLong));
        assert_eq!(code(line::<4>("")), Some(ProblemCode::StringEmpty));
        assert_eq!(code(line::<4>("📄📄📄📄")), None);
    }

    #[test]
    fn marks_that_mislead_are_refused() {
        for bad in ["a\0", "a\n", "\u{7f}", "\u{85}", "a\u{202e}b", "\u{feff}a", "\u{2069}", "\u{ffff}", "\u{1fffe}"] {
            assert_eq!(code(line::<9>(bad)), Some(ProblemCode::StringBadCharacters), "{bad:?}");
        }
        for good in ["a b", "ünï", "合同(终稿).pdf", "e\u{301}", "👩\u{200d}⚖️", "\u{fffd}"] {
            assert_eq!(code(line::<99>(good)), None, "{good:?}");
        }
        assert_eq!(code(lines::<9>("a\r\n\tb")), None);
        assert_eq!(code(lines::<9>("a\u{b}b")), Some(ProblemCode::StringBadCharacters));
    }

    #[test]
    fn idempotency_keys_are_visible_ascii() {
        assert_eq!(code(idempotency_key("order-2026/11#7~!")), None);
        assert_eq!(code(idempotency_key(&"k".repeat(IDEMPOTENCY_KEY_CHARS_MAX))), None);
        let long = "k".repeat(IDEMPOTENCY_KEY_CHARS_MAX + 1);
        assert_eq!(code(idempotency_key(&long)), Some(ProblemCode::IdempotencyKeyTooLong));
        for bad in ["", " ", "a b", "订单", "a\n", "\u{7f}"] {
            assert_eq!(code(idempotency_key(bad)), Some(ProblemCode::IdempotencyKeyInvalid));
        }
    }

    #[test]
    fn media_types_follow_rfc_6838() {
        for good in [
            "application/pdf",
            "image/svg+xml",
            "text/x.y-z_1",
            "application/vnd.ms-excel",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ] {
            assert_eq!(code(media_type(good)), None, "{good}");
        }
        let long = format!("application/{}", "x".repeat(MEDIA_TYPE_CHARS_MAX));
        for bad in [
            "",
            "/",
            "pdf",
            "application/",
            "/pdf",
            "Application/pdf",
            "application/PDF",
            "text/html; charset=utf-8",
            "text/html ",
            "a/b/c",
            "*/*",
            "text/.x",
            "text/中",
            &long,
        ] {
            assert_eq!(code(media_type(bad)), Some(ProblemCode::MediaTypeInvalid), "{bad}");
        }
    }
}
