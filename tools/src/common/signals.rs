//! Signal names on the command line.

use nix::sys::signal::Signal;

/// Parses `USR1`, `SIGUSR1`, `usr1` or a number.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let by_name = || if upper.starts_with("SIG") { upper.parse() } else { format!("SIG{upper}").parse() };
    let parsed = match text.parse::<i32>() {
        Ok(number) => Signal::try_from(number),
        Err(_) => by_name(),
    };
    parsed.map_err(|_| format!("'{text}' is not a signal: use a name like USR1 or a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["USR1", "SIGUSR1", "usr1", "10"] {
            assert_eq!(parse(text), Ok(Signal::SIGUSR1));
        }
        for text in ["", "SIG", "NOPE", "0", "4000"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
