//! Quantities as Kubernetes writes them: `4096`, `200Mi`, `1G`. Whole numbers only; a suffix is a power of 1024 with an
//! `i` and of 1000 without.
//!
//! Source: "Quantity" in Kubernetes' API reference, without its exponents and fractions.

const SUFFIXES: [(&str, u64); 11] = [
    ("", 1),
    ("k", 1000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
];

/// `None` for what is none, or is too large.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let &(_, unit) = SUFFIXES.iter().find(|(name, _)| *name == suffix)?;
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_with_and_without_a_suffix() {
        let cases = [("0", 0), ("4096", 4096), ("200Mi", 200 << 20), ("1G", 1_000_000_000), ("1Gi", 1 << 30)];
        for (text, number) in cases {
            assert_eq!(parse(text), Some(number), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "Mi", "-1", "+1", "1.5Gi", "1e3", "1gi", "1GiB", "1 Gi", " 1", "0x10", "16384Pi", "١"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
