//! Which Io the binary runs on, as its operator says it.

use std::fmt;
use std::str::FromStr;

/// The operator's choice of an Io. `Auto` means io_uring where it works, else readiness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// `UringIo` if [`uring_available`](super::uring_available), else `PollIo`.
    #[default]
    Auto,
    /// `UringIo`, or refuse to start.
    Uring,
    /// `PollIo`.
    Poll,
}

impl FromStr for IoChoice {
    type Err = String;

    fn from_str(word: &str) -> Result<IoChoice, String> {
        match word {
            "auto" => Ok(IoChoice::Auto),
            "uring" => Ok(IoChoice::Uring),
            "poll" => Ok(IoChoice::Poll),
            _ => Err(format!("`{word}` is none of auto, uring, poll")),
        }
    }
}

impl fmt::Display for IoChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            IoChoice::Auto => "auto",
            IoChoice::Uring => "uring",
            IoChoice::Poll => "poll",
        })
    }
}

/// Whether `UringIo` can work here: never, on this platform.
///
/// # Errors
/// Always: the reason in words for the operator.
#[cfg(not(target_os = "linux"))]
pub fn uring_available() -> Result<(), String> {
    Err("io_uring exists on Linux only".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_reads_back() {
        for choice in [IoChoice::Auto, IoChoice::Uring, IoChoice::Poll] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("epoll".parse::<IoChoice>().is_err());
    }
}
