//! Pages of a list. A cursor is opaque to callers; what it says is sealed and
//! checked by whoever issued it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::CURSOR_CHARS_MAX;
use crate::problem::{Problem, ProblemCode};

/// One page of a list, in a stable order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

/// A cursor from a caller: base64url without padding, of bounded length. Whether
/// it is one of ours is for its issuer to say, with the same code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    pub fn parse(text: String) -> Result<Self, Problem> {
        let coded = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if text.is_empty() || text.len() > CURSOR_CHARS_MAX || !text.bytes().all(coded) {
            return Err(Self::refused());
        }
        Ok(Self(text))
    }

    /// The problem of a cursor that is not ours.
    #[must_use]
    pub fn refused() -> Problem {
        Problem::parameter(ProblemCode::CursorInvalid, "cursor")
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_base64url_of_bounded_length() {
        assert!(Cursor::parse("aZ09-_".to_owned()).is_ok());
        for bad in ["", "a=", "a+b", "a/b", "a b", "é", &"a".repeat(CURSOR_CHARS_MAX + 1)] {
            let problem = Cursor::parse(bad.to_owned()).expect_err("refused");
            assert_eq!(problem.code(), ProblemCode::CursorInvalid);
        }
    }
}
