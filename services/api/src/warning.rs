//! Warnings: what an answer remarks on a request that it accepts.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::lang::{Lang, Text};

/// What is allowed but worth a second thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    /// One digest: the record is as strong as that one hash for ever.
    SingleDigest,
    /// A digest of no bytes at all.
    EmptyFile,
    /// So short a content that its digest gives it away.
    GuessableContent,
    /// Two requests under one idempotency key; this one, or the other, was kept.
    IdempotencyConflict,
}

impl WarningCode {
    pub const ALL: [WarningCode; 4] = [
        WarningCode::SingleDigest,
        WarningCode::EmptyFile,
        WarningCode::GuessableContent,
        WarningCode::IdempotencyConflict,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            WarningCode::SingleDigest => "single_digest",
            WarningCode::EmptyFile => "empty_file",
            WarningCode::GuessableContent => "guessable_content",
            WarningCode::IdempotencyConflict => "idempotency_conflict",
        }
    }

    fn detail(self) -> Text {
        match self {
            WarningCode::SingleDigest => Text::new(
                "Only one digest was given. Send a second one of another family, such as sha3-256 or sm3 beside sha256: should one hash be broken, the record still stands.",
                "只给出了一种哈希值。请再提供另一体系的哈希，例如在 sha256 之外加上 sha3-256 或 sm3：即使其中一种被攻破，记录依然有效。",
            ),
            WarningCode::EmptyFile => Text::new(
                "A digest is that of an empty file. Check that the right file was hashed.",
                "有一个哈希值是空文件的哈希。请确认所计算的是正确的文件。",
            ),
            WarningCode::GuessableContent => Text::new(
                "The file is so small that its contents could be found by trying. Send confidential: true if they should stay private.",
                "文件很小，其内容可能被穷举猜出。如需保密，请发送 confidential: true。",
            ),
            WarningCode::IdempotencyConflict => Text::new(
                "Two different requests came under this idempotency key. The ledger keeps the first; compare what is recorded with what you sent.",
                "该幂等键下先后收到两个不同的请求。账本只保留第一个；请核对所记录的内容与你发送的内容。",
            ),
        }
    }

    #[must_use]
    pub fn render(self, lang: Lang) -> Warning {
        Warning { code: self.as_str().into(), detail: lang.pick(self.detail()).to_owned() }
    }
}

/// A warning as the caller reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Warning {
    #[schema(value_type = WarningCode)]
    pub code: Cow<'static, str>,
    /// What is remarked, in the caller's language.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_warning_has_its_name_and_both_texts() {
        for code in WarningCode::ALL {
            assert_eq!(serde_json::to_value(code).expect("text"), code.as_str());
            assert_ne!(code.render(Lang::En).detail, code.render(Lang::Zh).detail);
        }
    }
}
