//! Fills the blanks of an error text. A blank is written `{name|words}`: the
//! words stand where no argument of that name was given, so that every text
//! reads well on its own.
//!
//! Arguments are numbers and words of ours, by type: no byte of a request can
//! reach an error text, and with it a log or a court's portal.

use crate::lang::{Lang, Text};

/// What may fill a blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    Number(u64),
    Words(Text),
    Name(&'static str),
    /// Shown as a list.
    Names(&'static [&'static str]),
}

pub(super) type Args = Vec<(&'static str, Arg)>;

impl Arg {
    fn show(self, lang: Lang, out: &mut String) {
        match self {
            Arg::Number(number) => out.push_str(&number.to_string()),
            Arg::Words(text) => out.push_str(lang.pick(text)),
            Arg::Name(name) => out.push_str(name),
            Arg::Names(names) => out.push_str(&names.join(match lang {
                Lang::En => ", ",
                Lang::Zh => "、",
            })),
        }
    }
}

pub(super) fn fill(text: Text, args: &[(&'static str, Arg)], lang: Lang) -> String {
    let mut out = String::new();
    let mut rest = lang.pick(text);
    while let Some((before, blank, after)) = next_blank(rest) {
        out.push_str(before);
        let (name, words) = blank.split_once('|').unwrap_or((blank, blank));
        match args.iter().find(|(given, _)| *given == name) {
            Some((_, arg)) => arg.show(lang, &mut out),
            None => out.push_str(words),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn next_blank(text: &str) -> Option<(&str, &str, &str)> {
    let (before, opened) = text.split_once('{')?;
    let (blank, after) = opened.split_once('}')?;
    Some((before, blank, after))
}

/// The names of a text's blanks, in order.
#[cfg(test)]
pub(super) fn blanks(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, blank, after)) = next_blank(rest) {
        names.push(blank.split_once('|').map_or(blank, |(name, _)| name));
        rest = after;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_take_arguments_or_their_own_words() {
        let text = Text::new("at most {limit|so many} of {known|them}.", "最多 {limit|若干} 个{known|项}。");
        assert_eq!(fill(text, &[], Lang::En), "at most so many of them.");
        let args = [("limit", Arg::Number(7)), ("known", Arg::Names(&["a", "b"]))];
        assert_eq!(fill(text, &args, Lang::En), "at most 7 of a, b.");
        assert_eq!(fill(text, &args, Lang::Zh), "最多 7 个a、b。");
        assert_eq!(blanks(text.en), ["limit", "known"]);
    }
}
