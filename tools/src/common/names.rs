//! Resource names, ranges and times on the command line and in COMMAND's environment.

use super::failure::{Code, Failure};
use mxlock_format::{ByteRange, QualifiedName, Resource};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

/// The named resource for NAME, taken whole and byte for byte, in a namespace.
///
/// # Errors
/// [`Code::Usage`] for an empty or too long name.
pub fn resource(namespace: Option<&OsStr>, name: &OsStr) -> Result<Resource, Failure> {
    let namespace = namespace.map_or(&b""[..], OsStr::as_bytes);
    let name = QualifiedName::new(namespace, name.as_bytes()).map_err(|e| {
        Failure::new(Code::Usage, format!("'{}' cannot be locked: {e}", name.as_bytes().escape_ascii()))
    })?;
    Ok(Resource::named(name))
}

/// Parses an inclusive range `A-B`, or `A-` up to the end.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_range(text: &str) -> Result<ByteRange, String> {
    let wrong = || format!("'{text}' is not a range: use FIRST-LAST or FIRST-, both inclusive");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |digits: &str| {
        // `u64::from_str` would also take a plus sign.
        let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
        if all_digits { digits.parse().map_err(|_| wrong()) } else { Err(wrong()) }
    };
    let start = number(first)?;
    let end = if last.is_empty() { u64::MAX } else { number(last)? };
    ByteRange::new(start, end).ok_or_else(|| format!("the range {text} ends before it starts"))
}

/// `A-B` or `A-`, as [`parse_range`] reads it.
pub fn show_range(range: ByteRange) -> String {
    match range.end() {
        u64::MAX => format!("{}-", range.start()),
        end => format!("{}-{end}", range.start()),
    }
}

/// Longest time that can be given in seconds: 366 days.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;

/// Parses seconds, fractions allowed, rounded up to the millisecond.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time: use seconds from 0 to {MAX_SECONDS}, with fractions if needed");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_millis((seconds * 1_000.0).ceil() as u64))
}

/// The value of `MXLOCK_NAMES`: the names joined by `:`; a colon or backslash within a name has a backslash before it.
pub fn join_for_environment<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> OsString {
    let mut joined = Vec::new();
    for (i, name) in names.into_iter().enumerate() {
        if i > 0 {
            joined.push(b':');
        }
        for &byte in name {
            if matches!(byte, b':' | b'\\') {
                joined.push(b'\\');
            }
            joined.push(byte);
        }
    }
    OsString::from_vec(joined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split_from_environment(joined: &[u8]) -> Vec<Vec<u8>> {
        let mut names = vec![Vec::new()];
        let mut bytes = joined.iter();
        while let Some(&byte) = bytes.next() {
            match byte {
                b':' => names.push(Vec::new()),
                b'\\' => names.last_mut().unwrap().extend(bytes.next()),
                _ => names.last_mut().unwrap().push(byte),
            }
        }
        names
    }

    proptest! {
        /// INTERFACE.md: whatever bytes the names have, a reader can take MXLOCK_NAMES apart again.
        #[test]
        fn environment_names_can_be_taken_apart(
            names in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(b':'), Just(b'\\'), 1u8..], 1..9), 1..5)
        ) {
            let joined = join_for_environment(names.iter().map(Vec::as_slice));
            prop_assert_eq!(split_from_environment(joined.as_bytes()), names);
        }
    }

    #[test]
    fn environment_names_look_like_this() {
        assert_eq!(join_for_environment([&b"a"[..], b"b:c", b"d\\"]), r"a:b\:c:d\\");
    }

    #[test]
    fn ranges() {
        let range = |a, b| Ok(ByteRange::new(a, b).unwrap());
        assert_eq!(parse_range("0-0"), range(0, 0));
        assert_eq!(parse_range("5-"), range(5, u64::MAX));
        assert_eq!(parse_range("0-18446744073709551615"), Ok(ByteRange::ALL));
        for text in ["", "-", "-5", "5", "7-6", "+1-2", "1-2-3", "a-b", "0-18446744073709551616"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
        for text in ["0-0", "5-", "7-9"] {
            assert_eq!(show_range(parse_range(text).unwrap()), text);
        }
    }

    #[test]
    fn seconds() {
        assert_eq!(parse_seconds("0"), Ok(Duration::ZERO));
        assert_eq!(parse_seconds("1.5"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_seconds("0.0001"), Ok(Duration::from_millis(1)), "a time that is not 0 does not become 0");
        for text in ["", "-1", "nan", "inf", "1e300", "x"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    /// A name is taken whole: any byte string is one, in the namespace that the option gives.
    #[test]
    fn names_are_taken_whole() {
        let name = OsStr::from_bytes(b"a/b\xff");
        let resource = super::resource(Some(OsStr::new("db")), name).unwrap();
        assert_eq!(resource.name().unwrap().joined(), b"db\0a/b\xff");
        let failure = super::resource(None, OsStr::new("")).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
    }
}
