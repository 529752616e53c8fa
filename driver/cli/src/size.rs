//! Sizes as people write them: a number and a unit that is a power of 1024. `4G`, `512M`, `1.5T`, `4GiB`, `4096`.

use ashlar_types::ByteCount;

const UNITS: [(&str, u32); 6] = [("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50), ("E", 60)];
/// More digits after the point than this say nothing about a size in bytes.
const FRACTION_DIGITS_MAX: usize = 6;

/// The exact number of bytes; what is not a whole number of bytes, or above 2^64 - 1, is refused.
pub fn parse_size(text: &str) -> Result<ByteCount, String> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = unit_shift(unit).ok_or_else(|| format!("{unit:?} is not a unit; known are K, M, G, T, P, E"))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let refuse = || "expected a number with a unit, for example 4G or 512M".to_owned();
    if whole.is_empty() || fraction.contains('.') || fraction.len() > FRACTION_DIGITS_MAX || number.ends_with('.') {
        return Err(refuse());
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let whole: u64 = whole.parse().map_err(|_| refuse())?;
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| refuse())? };
    let scaled = (u128::from(whole) * scale + fraction) << shift;
    if !scaled.is_multiple_of(scale) {
        return Err("this is not a whole number of bytes".to_owned());
    }
    let bytes = u64::try_from(scaled / scale).map_err(|_| "the size is above 2^64 - 1 bytes".to_owned())?;
    if bytes == 0 { Err("the size is zero".to_owned()) } else { Ok(ByteCount(bytes)) }
}

fn unit_shift(unit: &str) -> Option<u32> {
    let upper = unit.to_ascii_uppercase();
    let letter = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    match letter {
        "" if upper != "IB" => Some(0),
        _ => UNITS.iter().find(|(name, _)| *name == letter).map(|&(_, shift)| shift),
    }
}

/// For people: `4 GiB`, `1.5 GiB`, `300 B`.
pub fn format_size(size: ByteCount) -> String {
    let (name, shift) = match UNITS.iter().rev().find(|&&(_, shift)| size.0 >> shift > 0) {
        Some(&unit) => unit,
        None => return format!("{} B", size.0),
    };
    let tenths = ((u128::from(size.0) * 10) >> shift) as u64;
    match tenths % 10 {
        0 => format!("{} {name}iB", tenths / 10),
        tenth => format!("{}.{tenth} {name}iB", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let cases = [
            ("4G", 4 << 30),
            ("512M", 512 << 20),
            ("1.5T", 3 << 39),
            ("4GiB", 4 << 30),
            ("4gb", 4 << 30),
            ("4096", 4096),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(ByteCount(bytes)), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        for text in
            ["", "0", "0G", "G", "-1", "4X", "1..5G", ".5G", "5.G", "0.3", "16E", "99999999999999999999", "4 G", "iB"]
        {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_digit() {
        let cases =
            [(300, "300 B"), (4 << 30, "4 GiB"), (3 << 29, "1.5 GiB"), (4 << 40, "4 TiB"), (u64::MAX, "15.9 EiB")];
        for (bytes, text) in cases {
            assert_eq!(format_size(ByteCount(bytes)), text);
        }
    }
}
