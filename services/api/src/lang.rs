//! The two languages of every text a caller may read, and the choice between
//! them by `Accept-Language` (RFC 9110, section 12.5.4).

/// A language of the API's texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lang {
    #[default]
    En,
    Zh,
}

/// Ranges looked at in one `Accept-Language`: browsers send fewer than ten, and
/// work on a hostile header must stay bounded.
const RANGES_MAX: usize = 32;

impl Lang {
    pub const ALL: [Lang; 2] = [Lang::En, Lang::Zh];

    /// The language tag for `Content-Language`.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Zh => "zh-CN",
        }
    }

    /// Picks the text in this language.
    #[must_use]
    pub fn pick(self, text: Text) -> &'static str {
        match self {
            Lang::En => text.en,
            Lang::Zh => text.zh,
        }
    }

    /// Chooses the language that the header prefers: the higher quality wins, at
    /// equal quality the one named first. Ranges that cannot be read are passed
    /// over, and a header that accepts neither language gets English, because an
    /// error in the wrong language is worth more than none.
    #[must_use]
    pub fn negotiate(accept_language: Option<&str>) -> Lang {
        let mut wishes = Wishes::default();
        let ranges = accept_language.unwrap_or_default().split(',');
        for (position, range) in ranges.take(RANGES_MAX).enumerate() {
            if let Some((subtag, quality)) = parse_range(range) {
                wishes.note(subtag, Wish { quality, position });
            }
        }
        wishes.best()
    }
}

/// One text in both languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    pub en: &'static str,
    pub zh: &'static str,
}

impl Text {
    #[must_use]
    pub const fn new(en: &'static str, zh: &'static str) -> Self {
        Self { en, zh }
    }
}

/// What the header says of one language: quality in thousandths, and where.
#[derive(Clone, Copy)]
struct Wish {
    quality: u16,
    position: usize,
}

impl Wish {
    fn beats(self, other: Wish) -> bool {
        self.quality > other.quality || (self.quality == other.quality && self.position < other.position)
    }
}

#[derive(Default)]
struct Wishes {
    en: Option<Wish>,
    zh: Option<Wish>,
    any: Option<Wish>,
}

impl Wishes {
    fn note(&mut self, subtag: &str, wish: Wish) {
        let slot = if subtag == "*" {
            &mut self.any
        } else if subtag.eq_ignore_ascii_case("en") {
            &mut self.en
        } else if subtag.eq_ignore_ascii_case("zh") {
            &mut self.zh
        } else {
            return;
        };
        if slot.is_none_or(|held| wish.beats(held)) {
            *slot = Some(wish);
        }
    }

    fn best(&self) -> Lang {
        let acceptable = |named: Option<Wish>| named.or(self.any).filter(|w| w.quality > 0);
        match (acceptable(self.en), acceptable(self.zh)) {
            (Some(en), Some(zh)) if zh.beats(en) => Lang::Zh,
            (None, Some(_)) => Lang::Zh,
            _ => Lang::En,
        }
    }
}

/// `zh-Hans-CN;q=0.8` to its primary subtag and its quality.
fn parse_range(range: &str) -> Option<(&str, u16)> {
    let mut parts = range.split(';');
    let tag = parts.next()?.trim();
    let quality = match parts.next() {
        None => 1000,
        Some(parameter) => {
            let (name, value) = parameter.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("q") {
                return None;
            }
            parse_quality(value.trim())?
        }
    };
    if parts.next().is_some() {
        return None;
    }
    Some((tag.split('-').next()?, quality))
}

/// `0.8` to 800. RFC 9110, section 12.4.2: at most three decimals, at most 1.
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_language_is_chosen() {
        let cases = [
            (None, Lang::En),
            (Some(""), Lang::En),
            (Some("*"), Lang::En),
            (Some("zh"), Lang::Zh),
            (Some("ZH-cn"), Lang::Zh),
            (Some("zh-Hans-CN, en;q=0.9"), Lang::Zh),
            (Some("en-GB,zh;q=0.9"), Lang::En),
            (Some("en;q=0.5, zh;q=0.501"), Lang::Zh),
            (Some("zh, en"), Lang::Zh),
            (Some("en, zh"), Lang::En),
            (Some("fr, de;q=0.9"), Lang::En),
            (Some("fr, zh;q=0.1"), Lang::Zh),
            (Some("fr, *;q=0.5, en;q=0"), Lang::Zh),
            (Some("zh;q=0, *"), Lang::En),
            (Some("en;q=0.2, *"), Lang::Zh),
            (Some("zh;q=0"), Lang::En),
            (Some(" zh ; q=1.000 , en ; q=0.9"), Lang::Zh),
            (Some("zh-TW;q=0, zh-CN;q=0.7, en;q=0.6"), Lang::Zh),
        ];
        for (header, expected) in cases {
            assert_eq!(Lang::negotiate(header), expected, "{header:?}");
        }
    }

    #[test]
    fn unreadable_ranges_are_passed_over() {
        for bad in [
            "zh;q=2",
            "zh;q=1.001",
            "zh;q=0.1234",
            "zh;q=",
            "zh;q",
            "zh;q=-1",
            "zh;level=1",
            "zh;q=1;q=1",
            "zh;q=.5",
            "zhong",
            ";q=1",
            ",,,",
        ] {
            assert_eq!(Lang::negotiate(Some(bad)), Lang::En, "{bad}");
        }
        let long = "fr,".repeat(RANGES_MAX) + "zh";
        assert_eq!(Lang::negotiate(Some(&long)), Lang::En);
    }

    proptest::proptest! {
        #[test]
        fn any_header_gives_a_language(header in ".*") {
            let _ = Lang::negotiate(Some(&header));
        }
    }
}
