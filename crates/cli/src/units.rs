//! Sizes and times as people write and read them. Pure.

/// Suffixes and their powers of 1024.
const SUFFIXES: [(char, u32); 4] = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];

/// Reads `4MiB`, `64k`, `4194304`: powers of 1024, `B` and `iB` may be left out.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let explain = || format!("\"{text}\" is no size: expected a number such as 64k, 4MiB or 1G");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = lower[digits.len()..].trim_end_matches('b').trim_end_matches('i');
    let shift = match suffix.chars().next() {
        None => 0,
        Some(letter) if suffix.len() == 1 => {
            SUFFIXES.iter().find(|(name, _)| *name == letter).ok_or_else(explain)?.1
        }
        Some(_) => return Err(explain()),
    };
    let number: u64 = digits.trim().parse().map_err(|_| explain())?;
    number.checked_mul(1 << shift).ok_or_else(explain)
}

/// Shows a number of bytes with three significant digits: `512 B`, `1.50 KiB`, `3.00 GiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Shows seconds since the Unix epoch as `2026-11-22 13:45:00`, in UTC.
pub(crate) fn show_time(seconds: i64) -> String {
    const DAY: i64 = 86_400;
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Days are counted in eras of 400 years that begin on a first of March, so that the leap day
    // is the last day of a year and months have a regular length.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        };
        check("0", Some(0));
        check("4194304", Some(4 << 20));
        check("64k", Some(64 << 10));
        check("4M", Some(4 << 20));
        check("4MB", Some(4 << 20));
        check("4 MiB", Some(4 << 20));
        check("1g", Some(1 << 30));
        check("2TiB", Some(2 << 40));
        check("", None);
        check("MiB", None);
        check("-1", None);
        check("4x", None);
        check("4kk", None);
        check("99999999999999999999", None);
        check("99999999999T", None);
        check("1ü", None);
    }

    #[test]
    fn sizes_are_shown() {
        let check = |bytes: u64, expected: &str| assert_eq!(show_size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.00 KiB");
        check(1536, "1.50 KiB");
        check(1023 * 1024, "1.00 MiB");
        check(100 << 20, "100 MiB");
        check(3 << 30, "3.00 GiB");
        check(u64::MAX, "16.0 EiB");
    }

    #[test]
    fn times_are_shown() {
        let check = |seconds: i64, expected: &str| assert_eq!(show_time(seconds), expected);
        check(0, "1970-01-01 00:00:00");
        check(-1, "1969-12-31 23:59:59");
        check(951_782_400, "2000-02-29 00:00:00");
        check(1_795_351_500, "2026-11-22 12:45:00");
        check(4_102_444_799, "2099-12-31 23:59:59");
    }
}
