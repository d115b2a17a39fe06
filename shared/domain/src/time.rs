//! Instants as the ledger and the API have them, and the clock that services are handed.

use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text is not an RFC 3339 date-time with an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 date-time with an offset, such as 2026-11-22T05:13:39Z")]
pub struct NotATimestamp;

impl Timestamp {
    /// The instant that many microseconds after the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whole milliseconds since the Unix epoch, 0 before it: what a `UUIDv7` begins with.
    pub const fn as_unix_millis(self) -> u64 {
        if self.0 < 0 { 0 } else { self.0.unsigned_abs() / 1000 }
    }

    /// The instant `duration` later; stays at the end of time rather than overflow.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// The instant `duration` earlier.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads an RFC 3339 date-time; an offset is required. Digits beyond microseconds are left out.
    pub fn parse(text: &str) -> Result<Self, NotATimestamp> {
        let micros = rfc_3339(text).ok_or(NotATimestamp)?;
        // An offset can lead beyond the years that RFC 3339 can write.
        if (FIRST..=LAST).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(NotATimestamp)
        }
    }
}

/// Whether the text is an RFC 3339 date-time, whatever year it would be in UTC.
pub fn is_date_time(text: &str) -> bool {
    rfc_3339(text).is_some()
}

/// 0000-01-01T00:00:00Z and the last microsecond of 9999-12-31: what four digits of a year can write in UTC.
const FIRST: i64 = -62_167_219_200_000_000;
const LAST: i64 = 253_402_300_799_999_999;

const DAY_SECONDS: i64 = 86_400;

/// The microseconds since the Unix epoch that a `date-time` of RFC 3339, 5.6, names. A leap second, which
/// Unix time has not, is read as the second before it.
fn rfc_3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let is = |place: usize, byte: u8| bytes.get(place) == Some(&byte);
    let number = |from: usize, to: usize| digits(bytes.get(from..to)?);
    if !(is(4, b'-') && is(7, b'-') && (is(10, b'T') || is(10, b't')) && is(13, b':') && is(16, b':')) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let (micros, zone) = fraction(bytes.get(19..)?)?;
    let offset = match zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', tens, ones] if hours.len() == 2 => {
            let (hours, minutes) = (digits(hours)?, digits(&[*tens, *ones])?);
            let offset = (hours <= 23 && minutes <= 59).then_some(hours * 60 + minutes)?;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let minutes = hour * 60 + minute - offset;
    let leap = second == 60 && minutes.rem_euclid(24 * 60) == 24 * 60 - 1;
    let date = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    if !date || hour > 23 || minute > 59 || (second > 59 && !leap) {
        return None;
    }
    let seconds = day_number(year, month, day) * DAY_SECONDS + minutes * 60 + second.min(59);
    Some(seconds * 1_000_000 + micros)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
    })
}

/// The microseconds of a fraction, if there is one, and what comes after it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(fraction) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = fraction.split_at(length);
    let padded = digits.iter().map(|digit| i64::from(digit - b'0')).chain([0; 6]);
    let micros = padded.take(6).fold(0, |micros, digit| micros * 10 + digit);
    (length > 0).then_some((micros, rest))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that a leap
/// day is the last of its year.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The date that is that many days after 1970-01-01, as year, month and day.
fn date_of(number: i64) -> (i64, i64, i64) {
    // The mean year finds the right one or one beside it.
    let guess = (number * 400).div_euclid(146_097) + 1970;
    let year = (guess - 1..=guess + 1)
        .rev()
        .find(|year| day_number(*year, 1, 1) <= number);
    let year = year.unwrap_or(guess);
    let month = (1..=12).rev().find(|month| day_number(year, *month, 1) <= number);
    let month = month.unwrap_or(1);
    (year, month, number - day_number(year, month, 1) + 1)
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with as many digits of the second as it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !(FIRST..=LAST).contains(&self.0) {
            return write!(f, "{}us", self.0);
        }
        let (seconds, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (year, month, day) = date_of(seconds.div_euclid(DAY_SECONDS));
        let second = seconds.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if micros > 0 {
            let digits = format!("{micros:06}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the time comes from; tests hand in their own.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
        let now = std::time::SystemTime::now();
        let since_epoch = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A clock that does not go back when the one below it is set back: it then goes a tenth slower than that one until
/// the two meet again. So what comes later has the later time, and what is due in a while is due in about that while.
#[derive(Debug)]
pub struct Monotone {
    below: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// What the clock below said last.
    last: Timestamp,
    /// What the two clocks said when the one below was last set back.
    set_back: (Timestamp, Timestamp),
}

impl Monotone {
    /// A clock over that one that is never before `least`.
    pub fn new(below: Arc<dyn Clock>, least: Timestamp) -> Self {
        let now = below.now();
        let state = State {
            last: now,
            set_back: (now, least),
        };
        Self {
            below,
            state: Mutex::new(state),
        }
    }

    fn advance(state: &mut State, now: Timestamp) -> Timestamp {
        if now < state.last {
            state.set_back = (now, state.time(state.last));
        }
        state.last = now;
        state.time(now)
    }
}

impl State {
    /// The time when the clock below says `now`.
    fn time(&self, now: Timestamp) -> Timestamp {
        let (below, time) = self.set_back;
        now.max(time.plus(now.since(below) / 10 * 9))
    }
}

impl Clock for Monotone {
    fn now(&self) -> Timestamp {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock: of two that ask, the later one is told the later time.
        let now = self.below.now();
        Self::advance(&mut state, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn over(least: i64) -> State {
        State {
            last: Timestamp(0),
            set_back: (Timestamp(0), Timestamp(least)),
        }
    }

    #[test]
    fn a_clock_set_back_by_an_hour_goes_on_and_meets_the_right_time_again() {
        let second = |n: i64| Timestamp(n * 1_000_000);
        let mut state = over(0);
        assert_eq!(Monotone::advance(&mut state, second(7200)), second(7200));
        assert_eq!(Monotone::advance(&mut state, second(3600)), second(7200));
        assert_eq!(
            Monotone::advance(&mut state, second(3700)),
            second(7290),
            "a tenth slower"
        );
        let met = second(3600 + 10 * 3600);
        assert_eq!(Monotone::advance(&mut state, met), met);
        let ahead = second(50 * 3600);
        assert_eq!(Monotone::advance(&mut state, ahead), ahead);
        assert_eq!(
            Monotone::advance(&mut over(90_000_000), second(10)),
            second(99),
            "what stands in the ledger was before"
        );
    }

    proptest! {
        #[test]
        fn the_ledgers_time_never_goes_back_and_is_never_behind(
            least in 0i64..1_000_000_000, told in proptest::collection::vec(0i64..1_000_000_000, 1..50),
        ) {
            let mut state = over(least);
            let mut before = Timestamp(least);
            for now in told {
                let now = Timestamp(now);
                let time = Monotone::advance(&mut state, now);
                prop_assert!(time >= before.max(now));
                before = time;
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(micros in FIRST..=LAST) {
            let instant = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::parse(&instant.to_string()), Ok(instant));
        }

        #[test]
        fn another_calendar_agrees(micros in FIRST..LAST - 100_000_000_000, offset in -1439i64..=1439) {
            let instant = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(Timestamp::from_micros(micros).to_string(), instant.to_string());
            let zone = jiff::tz::Offset::from_seconds(i32::try_from(offset * 60).unwrap()).unwrap();
            let text = instant.display_with_offset(zone).to_string();
            // Beyond the years 0 to 9999 there is nothing to read.
            if text.len() > 19 && !text.starts_with('-') {
                prop_assert_eq!(Timestamp::parse(&text), Ok(Timestamp::from_micros(micros)), "{}", text);
            }
        }

        #[test]
        fn reading_never_panics(text in "[0-9TtZz:.,+-]{0,40}", other in "\\PC{0,40}") {
            let _read = (Timestamp::parse(&text), Timestamp::parse(&other));
        }
    }

    #[test]
    fn only_rfc_3339_is_read() {
        for (good, is) in [
            ("2026-11-22T05:13:39Z", "2026-11-22T05:13:39Z"),
            ("2026-11-22t05:13:39.5+01:00", "2026-11-22T04:13:39.5Z"),
            ("2026-11-22T05:13:39.123456789-00:30", "2026-11-22T05:43:39.123456Z"),
            (
                "2026-11-22T05:13:39.000001234567890123456789z",
                "2026-11-22T05:13:39.000001Z",
            ),
            ("2026-11-22T05:13:39-00:00", "2026-11-22T05:13:39Z"),
            ("2026-01-01T00:00:00+23:59", "2025-12-31T00:01:00Z"),
            ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("2000-02-29T00:00:00Z", "2000-02-29T00:00:00Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("2017-01-01T00:59:60+01:00", "2016-12-31T23:59:59Z"),
        ] {
            assert_eq!(
                Timestamp::parse(good).map(|read| read.to_string()),
                Ok(is.to_owned()),
                "{good}"
            );
        }
        for bad in [
            "",
            "now",
            "2026-11-22",
            "2026-11-22T05:13:39",
            "2026-11-22T05:13Z",
            "2026-11-22 05:13:39Z",
            "20261122T051339Z",
            "2026-13-22T05:13:39Z",
            "2026-00-22T05:13:39Z",
            "2026-02-29T05:13:39Z",
            "2100-02-29T05:13:39Z",
            "2026-04-31T05:13:39Z",
            "2026-11-00T05:13:39Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T05:60:39Z",
            "2026-11-22T05:13:60Z",
            "2026-11-22T05:13:39.Z",
            "2026-11-22T05:13:39,5Z",
            "2026-11-22T05:13:39+01",
            "2026-11-22T05:13:39+0100",
            "2026-11-22T05:13:39+01:00:30",
            "2026-11-22T05:13:39+24:00",
            "2026-11-22T05:13:39+00:60",
            "2026-11-22T05:13:39Z[Europe/Berlin]",
            "+002026-11-22T05:13:39Z",
            "1732252419",
        ] {
            assert!(!is_date_time(bad) && Timestamp::parse(bad).is_err(), "{bad}");
        }
        // A year that cannot be written in UTC is a date-time, and no instant.
        assert!(is_date_time("9999-12-31T23:59:59-01:00") && is_date_time("0000-01-01T00:00:00+01:00"));
        assert_eq!(Timestamp::parse("9999-12-31T23:59:59-01:00"), Err(NotATimestamp));
    }
}
