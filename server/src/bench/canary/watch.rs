//! What a canary looks like, and finding one in whatever came back.
//!
//! A canary is [`CANARY_BYTES`] letters and digits: the mark, the database's number, its generation (a name
//! that was dropped and made again is another database), and a check that nobody can guess. It is looked
//! for as it is and, because blobs travel so, in base64. A mark that no right canary follows counts as
//! somebody else's: half of a neighbour's row is a leak too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use memchr::memmem;

use super::mix;

/// What every canary begins with, and nothing else has in it.
const MARK: &str = "cAnArY";

/// Hexadecimal digits of the number, of the generation, and of the check.
const NUMBER_DIGITS: usize = 8;
const CHECK_DIGITS: usize = 16;

/// Bytes of a canary.
pub const CANARY_BYTES: usize = MARK.len() + 2 * NUMBER_DIGITS + CHECK_DIGITS;

/// Letters of base64 that a whole canary takes at least.
const BASE64_BYTES_MIN: usize = CANARY_BYTES.div_ceil(3) * 4 - 3;

/// Bytes that are shown on both sides of a canary that is not where it belongs.
const SHOWN_BYTES: usize = 80;

/// Whose a canary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The database's number, from 0.
    pub number: u32,
    /// How often its name was given before.
    pub generation: u32,
}

/// A canary that was found where it does not belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Whose it is; `None` where only a part of one is there, or of another run.
    pub of: Option<Owner>,
    /// What stands around it.
    pub excerpt: String,
}

/// Knows the canaries of a run, and counts what it has looked at.
pub struct Watch {
    secret: u64,
    /// Bytes that were looked through.
    pub bytes: u64,
    /// Canaries that were found where they belong.
    pub own: u64,
}

impl Watch {
    /// The one of a run with this secret.
    #[must_use]
    pub fn new(secret: u64) -> Watch {
        Watch { secret, bytes: 0, own: 0 }
    }

    /// The canary of a database.
    #[must_use]
    pub fn canary(&self, owner: Owner) -> String {
        let Owner { number, generation } = owner;
        let check = mix(self.secret ^ mix(u64::from(number) << 32 | u64::from(generation)));
        format!("{MARK}{number:08x}{generation:08x}{check:016x}")
    }

    /// Look through what came back for `asker`, who may see its own canary; nobody may see any where it is
    /// `None`. How many of its own there were.
    ///
    /// # Errors
    /// The first that is another's.
    pub fn look(&mut self, asker: Option<Owner>, bytes: &[u8]) -> Result<u64, Leak> {
        self.bytes += bytes.len() as u64;
        let mut own = self.look_at(asker, bytes)?;
        for run in base64_runs(bytes) {
            own += self.look_at(asker, &run)?;
        }
        self.own += own;
        Ok(own)
    }

    /// The same for what is not whole: it may be cut, and has its framing, so that parts of the asker's own
    /// are good too.
    ///
    /// # Errors
    /// The first that is another's.
    pub fn look_at_rest(&mut self, asker: Option<Owner>, bytes: &[u8]) -> Result<(), Leak> {
        self.bytes += bytes.len() as u64;
        let own = asker.map_or_else(String::new, |owner| self.canary(owner));
        for at in memmem::find_iter(bytes, MARK.as_bytes()) {
            let letters = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric());
            let part = letters.take(CANARY_BYTES).count();
            if !own.as_bytes().starts_with(&bytes[at..at + part]) {
                return Err(Leak { of: self.owner(&bytes[at..]), excerpt: shown(bytes, at) });
            }
        }
        Ok(())
    }

    fn look_at(&self, asker: Option<Owner>, bytes: &[u8]) -> Result<u64, Leak> {
        let mut own = 0;
        for at in memmem::find_iter(bytes, MARK.as_bytes()) {
            let found = self.owner(&bytes[at..]);
            if found.is_none() || found != asker {
                return Err(Leak { of: found, excerpt: shown(bytes, at) });
            }
            own += 1;
        }
        Ok(own)
    }

    /// Whose canary these bytes begin with.
    fn owner(&self, bytes: &[u8]) -> Option<Owner> {
        let text = std::str::from_utf8(bytes.get(..CANARY_BYTES)?).ok()?;
        let digits = text.strip_prefix(MARK)?;
        let number =
            |from: usize| u32::from_str_radix(&digits[from..from + NUMBER_DIGITS], 16).ok();
        let owner = Owner { number: number(0)?, generation: number(NUMBER_DIGITS)? };
        (self.canary(owner) == text).then_some(owner)
    }
}

/// What stands around a place.
fn shown(bytes: &[u8], at: usize) -> String {
    let end = bytes.len().min(at + CANARY_BYTES + SHOWN_BYTES);
    String::from_utf8_lossy(&bytes[at.saturating_sub(SHOWN_BYTES)..end]).into_owned()
}

/// What the longer runs of base64's letters stand for.
fn base64_runs(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let runs = bytes.split(move |byte| !is_letter(byte));
    runs.filter(|run| run.len() >= BASE64_BYTES_MIN).filter_map(|run| {
        // What is behind the last whole group has no canary's end in it that the bytes before lack, but for
        // groups of two and three letters, which stand for whole bytes too; one letter stands for none.
        let whole = if run.len() % 4 == 1 { &run[..run.len() - 1] } else { run };
        let whole_groups = &whole[..whole.len() / 4 * 4];
        STANDARD_NO_PAD.decode(whole).or_else(|_| STANDARD_NO_PAD.decode(whole_groups)).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Owner = Owner { number: 1, generation: 0 };
    const AGAIN: Owner = Owner { number: 1, generation: 1 };
    const TWO: Owner = Owner { number: 0xfffe, generation: 7 };

    #[test]
    fn only_its_own_canary_may_come_back() {
        let mut watch = Watch::new(5);
        let [one, again, two] = [ONE, AGAIN, TWO].map(|owner| watch.canary(owner));
        assert_eq!(one.len(), CANARY_BYTES);
        let text = format!("HTTP/1.1 200 OK\r\n\r\n[\"{one}\",\"{one}{one}\"]");
        assert_eq!(watch.look(Some(ONE), text.as_bytes()), Ok(3));
        assert_eq!((watch.own, watch.bytes), (3, text.len() as u64));
        assert_eq!(watch.look(Some(TWO), b"nothing of anybody"), Ok(0));
        for (asker, text, of) in [
            (Some(ONE), format!("[\"{one}\",\"{two}\"]"), Some(TWO)),
            (Some(TWO), one.clone(), Some(ONE)),
            (Some(AGAIN), one.clone(), Some(ONE)),
            (Some(ONE), again, Some(AGAIN)),
            (None, one.clone(), Some(ONE)),
            (Some(TWO), one.to_string() + "garbage", Some(ONE)),
            // Cut, changed, of another run: whose it is cannot be told, but not the asker's.
            (Some(ONE), one[..one.len() - 1].to_owned(), None),
            (Some(ONE), one.replace("00000001", "00000003"), None),
            (Some(ONE), Watch::new(6).canary(ONE), None),
            (Some(ONE), format!("{one} and {MARK}"), None),
        ] {
            let found = watch.look(asker, text.as_bytes());
            assert_eq!(found.as_ref().err().map(|leak| leak.of), Some(of), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_is_cut_may_end_in_a_part_of_its_own() {
        let mut watch = Watch::new(5);
        let [one, two] = [ONE, TWO].map(|owner| watch.canary(owner));
        let mut look = |asker, text: &str| watch.look_at_rest(asker, text.as_bytes()).is_ok();
        for bytes in MARK.len()..=CANARY_BYTES {
            assert!(look(Some(ONE), &format!("{one}, and {}", &one[..bytes])));
            assert!(look(Some(ONE), &format!("{}\r\n2a\r\n{}", &one[..bytes], &one[bytes..])));
            assert!(!look(None, &one[..bytes]));
            let seen = look(Some(ONE), &two[..bytes]);
            // Before its number begins to differ it may be anybody's.
            assert_eq!(seen, one.starts_with(&two[..bytes]));
        }
    }

    #[test]
    fn canaries_in_blobs_are_found_at_every_offset() {
        let mut watch = Watch::new(5);
        let two = watch.canary(TWO);
        for before in 0..7 {
            for after in 0..7 {
                let blob = format!("{}{two}{}", "\u{1}".repeat(before), "\u{2}".repeat(after));
                for padded in [true, false] {
                    let mut base64 = STANDARD_NO_PAD.encode(&blob);
                    while padded && !base64.len().is_multiple_of(4) {
                        base64.push('=');
                    }
                    let text = format!("{{\"type\":\"blob\",\"base64\":\"{base64}\"}}");
                    assert_eq!(watch.look(Some(TWO), text.as_bytes()), Ok(1), "{text}");
                    let leak = watch.look(Some(ONE), text.as_bytes()).unwrap_err();
                    assert_eq!(leak.of, Some(TWO), "{text}");
                }
            }
        }
    }
}
