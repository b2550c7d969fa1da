//! Quantities as people write them: sizes, processor time and lengths of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, written such as `512M` or `2GiB`; every unit is a power of 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Processor time per wall time, written in cores such as `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus {
    /// Thousandths of a core.
    pub millis: u32,
}

/// A length of time, written with its unit such as `500ms`, `90s`, `15m` or `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub Duration);

/// A text that is not the quantity that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct QuantityError {
    text: String,
    expected: &'static str,
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError { text: text.to_owned(), expected: "a size such as `512M` or `2G`" };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.to_ascii_lowercase();
        let shift = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("G", 30_u32), ("M", 20), ("K", 10)];
        match units.iter().find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Cpus {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let cores: Option<f64> = text.parse().ok();
        match cores.map(|cores| (cores * 1000.0).round()) {
            // The kernel's smallest quota is 1 ms in 100 ms.
            Some(millis) if (10.0..=1_024_000.0).contains(&millis) => Ok(Self { millis: millis as u32 }),
            _ => Err(QuantityError { text: text.to_owned(), expected: "a number of cores such as `1.5`" }),
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.millis) / 1000.0)
    }
}

impl TimeSpan {
    /// So many seconds.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

/// Units of time in milliseconds, the largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for TimeSpan {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError { text: text.to_owned(), expected: "a time with its unit such as `90s` or `15m`" };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| error())?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        number.checked_mul(*factor).map(|millis| Self(Duration::from_millis(millis))).ok_or_else(error)
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let whole = UNITS.iter().find(|(_, factor)| millis > 0 && millis.is_multiple_of(u128::from(*factor)));
        match whole {
            Some((unit, factor)) => write!(f, "{}{unit}", millis / u128::from(*factor)),
            None => f.write_str("0s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("1", 1), ("4k", 4096), ("512M", 512 << 20), ("2GiB", 2 << 30), ("1tb", 1 << 40)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "0", "M", "-1", "1.5G", "1 G", "1x", "99999999999T", "1gibb"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize(2 << 30).to_string(), "2G");
        assert_eq!(ByteSize(1536 << 20).to_string(), "1536M");
    }

    #[test]
    fn cores_are_read_in_thousandths() {
        assert_eq!("1.5".parse(), Ok(Cpus { millis: 1500 }));
        assert_eq!(Cpus { millis: 1500 }.to_string(), "1.5");
        for text in ["", "0", "-1", "NaN", "inf", "0.001", "two"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }
    #[test]
    fn times_are_read_with_their_units() {
        for (text, millis, shown) in [
            ("500ms", 500, "500ms"),
            ("120s", 120_000, "2m"),
            ("90s", 90_000, "90s"),
            ("2h", 7_200_000, "2h"),
            ("0s", 0, "0s"),
        ] {
            let time = TimeSpan(Duration::from_millis(millis));
            assert_eq!(text.parse(), Ok(time), "{text}");
            assert_eq!(time.to_string(), shown);
        }
        for text in ["", "5", "s", "-1s", "1.5s", "1 s", "1d", "99999999999999999999h", "9999999999999999999h"] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
    }
}
