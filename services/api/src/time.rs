//! Moments, as the API writes them: RFC 3339 in UTC with milliseconds. Nothing
//! here reads a clock.

use std::fmt;
use std::str::FromStr;

use utoipa::ToSchema;

/// A moment in Unix milliseconds, written `2026-11-22T08:00:00.000Z`.
///
/// Invariant: at most [`Timestamp::MAX`], the last moment that four digits of
/// year can write; the constructors keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-22T08:00:00.000Z")]
pub struct Timestamp(u64);

const MS_PER_DAY: u64 = 86_400_000;
const MS_PER_HOUR: u64 = 3_600_000;
const MS_PER_MINUTE: u64 = 60_000;

/// Days from 0000-03-01 to 1970-01-01 in the Gregorian calendar.
const DAYS_BEFORE_EPOCH: i64 = 719_468;
/// Days in the Gregorian cycle of 400 years.
const DAYS_PER_ERA: i64 = 146_097;

impl Timestamp {
    /// 9999-12-31T23:59:59.999Z.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999);

    /// The moment so many milliseconds after the epoch, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn from_unix_ms(ms: u64) -> Self {
        Self(ms).min(Self::MAX)
    }

    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0
    }

    /// Reads any date and time of RFC 3339 from 1970 on; what is finer than a
    /// millisecond is cut off.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ms = parse_rfc3339(text)?;
        u64::try_from(ms).ok().map(Self).filter(|time| *time <= Self::MAX)
    }

    fn write(self) -> [u8; 24] {
        let (year, month, day) = civil_from_days(self.0 / MS_PER_DAY);
        let of_day = self.0 % MS_PER_DAY;
        let mut out = *b"0000-00-00T00:00:00.000Z";
        for (at, width, value) in [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, of_day / MS_PER_HOUR),
            (14, 2, of_day / MS_PER_MINUTE % 60),
            (17, 2, of_day / 1000 % 60),
            (20, 3, of_day % 1000),
        ] {
            put_digits(&mut out[at..at + width], value);
        }
        out
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.write()).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Timestamp {
    type Err = TimeMalformed;

    fn from_str(text: &str) -> Result<Self, TimeMalformed> {
        Self::parse(text).ok_or(TimeMalformed)
    }
}

/// The text is not a date and time of RFC 3339 from 1970 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a date and time of RFC 3339 from 1970 on")]
pub struct TimeMalformed;

crate::text::impl_serde_as_text!(Timestamp, "a date and time of RFC 3339");

/// Whether the text is a date and time of RFC 3339, in any year.
#[must_use]
pub fn is_rfc3339(text: &str) -> bool {
    parse_rfc3339(text).is_some()
}

/// RFC 3339, section 5.6, with `T` and `Z` in upper case and without leap
/// seconds, which Unix time cannot name. Unix milliseconds.
fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (fixed, tail) = bytes.split_at_checked(19)?;
    if [fixed[4], fixed[7], fixed[10], fixed[13], fixed[16]] != *b"--T::" {
        return None;
    }
    let year = digits(&fixed[0..4])?;
    let month = digits(&fixed[5..7])?;
    let day = digits(&fixed[8..10])?;
    let hour = digits(&fixed[11..13]).filter(|hour| *hour < 24)?;
    let minute = digits(&fixed[14..16]).filter(|minute| *minute < 60)?;
    let second = digits(&fixed[17..19]).filter(|second| *second < 60)?;
    if day == 0 || day > days_in_month(year, month)? {
        return None;
    }
    let (ms, zone) = parse_fraction(tail)?;
    let offset_minutes = parse_offset(zone)?;
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1000 + ms)
}

/// `.123456Z` to the milliseconds and what follows.
fn parse_fraction(tail: &[u8]) -> Option<(i64, &[u8])> {
    let Some(fraction) = tail.strip_prefix(b".") else {
        return Some((0, tail));
    };
    let length = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let (fraction, zone) = fraction.split_at(length);
    let mut padded = *b"000";
    let kept = length.min(3);
    padded[..kept].copy_from_slice(&fraction[..kept]);
    Some((digits(&padded)?, zone))
}

/// `Z` or `+08:00` to minutes east of UTC.
fn parse_offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let hours = digits(&[*h1, *h2]).filter(|hours| *hours < 24)?;
            let minutes = digits(&[*m1, *m2]).filter(|minutes| *minutes < 60)?;
            let east = hours * 60 + minutes;
            Some(if *sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

fn put_digits(out: &mut [u8], mut value: u64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

fn days_in_month(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => Some(if leap { 29 } else { 28 }),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
}

/// Days from the epoch, in years that begin in March so that the leap day comes
/// last (H. Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - DAYS_BEFORE_EPOCH
}

/// The inverse of [`days_from_civil`], from the epoch on.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_EPOCH.unsigned_abs();
    let cycle = DAYS_PER_ERA.unsigned_abs();
    let (era, day_of_era) = (days / cycle, days % cycle);
    let leap_days = day_of_era / 1460 + day_of_era / (cycle - 1);
    let year_of_era = (day_of_era + day_of_era / 36_524 - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// jiff leaves a day's room at the end of the year 9999.
    const JIFF_MAX_MS: u64 = 253_402_200_000_000;

    #[test]
    fn moments_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_334_400_123, "2026-11-22T08:00:00.123Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp(ms).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp(ms)));
        }
        assert_eq!(Timestamp::from_unix_ms(u64::MAX), Timestamp::MAX);
        let east = Timestamp::parse("2026-11-22T16:00:00.1234567+08:00");
        assert_eq!(east, Some(Timestamp(1_795_334_400_123)));
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "",
            "2026-11-22",
            "2026-11-22T08:00:00",
            "2026-11-22 08:00:00Z",
            "2026-11-22t08:00:00Z",
            "2026-11-22T08:00:00z",
            "2026-11-22T08:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T08:60:00Z",
            "2026-11-22T08:00:60Z",
            "2026-11-22T08:00:00.Z",
            "2026-11-22T08:00:00.1234567890Z",
            "2026-11-22T08:00:00+0800",
            "2026-11-22T08:00:00+24:00",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-22T08:00:00ZZ",
            "+026-11-22T08:00:00Z",
            "2026-11-22T08:00:00,5Z",
            "２026-11-22T08:00:00Z",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
        assert!(is_rfc3339("1900-02-28T00:00:00-00:00"));
        assert_eq!(Timestamp::parse("1969-12-31T23:59:59Z"), None);
        assert_eq!(Timestamp::parse("9999-12-31T23:59:59-01:00"), None);
    }

    proptest! {
        #[test]
        fn writing_agrees_with_jiff(ms in 0..=JIFF_MAX_MS) {
            let theirs = jiff::Timestamp::from_millisecond(ms.cast_signed()).expect("in range");
            prop_assert_eq!(Timestamp(ms).to_string(), format!("{theirs:.3}"));
            prop_assert_eq!(Timestamp::parse(&Timestamp(ms).to_string()), Some(Timestamp(ms)));
        }

        #[test]
        fn reading_agrees_with_jiff(
            (year, month, day) in (0..=9999i16, 0..=13i8, 0..=32i8),
            (hour, minute, second) in (0..=24i8, 0..=60i8, 0..=59i8),
            offset in prop::sample::select(vec!["Z", "+08:00", "-11:30"]),
        ) {
            let text = format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.5{offset}"
            );
            let theirs = text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
            prop_assert_eq!(parse_rfc3339(&text).filter(|_| year > 0), theirs.filter(|_| year > 0));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = Timestamp::parse(&text);
        }
    }
}
