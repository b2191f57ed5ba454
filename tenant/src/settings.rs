//! Settings of a database, or of an organisation or group: switches and keys, as the catalogue keeps
//! them.
//!
//! ```text
//! delete_protection=1 block_writes=1 block_reason=moved%20away tokens_after_s=1790000000
//! ```
//!
//! Behind these stands what `life.rs` writes: how long a database lives; before it `template=name.id`, of
//! a group or organisation. Entries in this order with one space between them, and only those that say something, so that equal
//! settings are equal texts. In a value every byte outside of `a-z A-Z 0-9 - . _ ~ ,` is `%` and two
//! upper-case hex digits. The reader takes exactly what the writer writes.

use std::fmt::Write as _;

use storage::TenantId;

use crate::budget::Unreadable;
use crate::life::{Life, LifeChange};
use crate::limits;

/// A public key of Ed25519, in its 32 bytes.
pub type PublicKey = [u8; 32];

/// See the head of the file. Nothing of it is inherited but what says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// It cannot be dropped.
    pub delete_protection: bool,
    /// Its statements are refused that read, and those that write.
    pub block_reads: bool,
    /// Its statements are refused that write.
    pub block_writes: bool,
    /// What those are told.
    pub block_reason: Option<Box<str>>,
    /// Tokens that were issued before this are refused, in seconds since 1970; 0: none. A group's holds
    /// for each of its databases too, and an organisation's.
    pub tokens_after_s: u64,
    /// Keys whose signatures are believed on tokens for it alone: a group's for its databases.
    pub jwt_keys: Vec<PublicKey>,
    /// What databases begin with that are created in it: a group's word, or else its organisation's.
    pub template: Option<Template>,
    /// How long it lives, or databases in it: see `life.rs` for what is inherited.
    pub life: Life,
}

/// A database of which others are copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub name: Box<str>,
    /// Its id: another one of that name is not meant. Nothing in a change: the catalogue knows it.
    pub id: Option<TenantId>,
}

/// A change of settings; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// See [`Settings::delete_protection`].
    pub delete_protection: Option<bool>,
    /// See [`Settings::block_reads`].
    pub block_reads: Option<bool>,
    /// See [`Settings::block_writes`].
    pub block_writes: Option<bool>,
    /// See [`Settings::block_reason`]; inside, `None` for no reason.
    pub block_reason: Option<Option<Box<str>>>,
    /// Refuse all tokens that were issued until now.
    pub rotate_tokens: bool,
    /// See [`Settings::jwt_keys`].
    pub jwt_keys: Option<Vec<PublicKey>>,
    /// See [`Settings::template`]; inside, `None` for none.
    pub template: Option<Option<Template>>,
    /// See [`Settings::life`].
    pub life: LifeChange,
}

const NAMES: [&str; 7] = [
    "delete_protection",
    "block_reads",
    "block_writes",
    "block_reason",
    "tokens_after_s",
    "jwt_keys",
    "template",
];

impl Settings {
    /// Settings that say nothing.
    pub const NOTHING: Settings = Settings {
        delete_protection: false,
        block_reads: false,
        block_writes: false,
        block_reason: None,
        tokens_after_s: 0,
        jwt_keys: Vec::new(),
        template: None,
        life: Life::NOTHING,
    };

    /// They say nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Settings::NOTHING
    }

    /// What they become by `change`, at this time in seconds since 1970.
    #[must_use]
    pub fn changed(&self, change: &SettingsChange, now_s: u64) -> Settings {
        // Later than now: tokens of this second are refused too. Later than before: those of a
        // rotation in this second as well. Who mints afterwards issues for that instant.
        let rotated_s = (now_s + 1).max(self.tokens_after_s.saturating_add(1));
        Settings {
            delete_protection: change.delete_protection.unwrap_or(self.delete_protection),
            block_reads: change.block_reads.unwrap_or(self.block_reads),
            block_writes: change.block_writes.unwrap_or(self.block_writes),
            block_reason: change.block_reason.clone().unwrap_or_else(|| self.block_reason.clone()),
            tokens_after_s: if change.rotate_tokens { rotated_s } else { self.tokens_after_s },
            jwt_keys: change.jwt_keys.clone().unwrap_or_else(|| self.jwt_keys.clone()),
            template: change.template.clone().unwrap_or_else(|| self.template.clone()),
            life: self.life.changed(&change.life),
        }
    }

    /// As the catalogue keeps them.
    #[must_use]
    pub fn to_text(&self) -> String {
        let switch = |on: bool| on.then(|| "1".to_owned());
        let keys = || self.jwt_keys.iter().map(hex_of).collect::<Vec<String>>().join(",");
        let values: [Option<String>; NAMES.len()] = [
            switch(self.delete_protection),
            switch(self.block_reads),
            switch(self.block_writes),
            self.block_reason.as_deref().map(escaped),
            (self.tokens_after_s > 0).then(|| self.tokens_after_s.to_string()),
            (!self.jwt_keys.is_empty()).then(keys),
            self.template
                .as_ref()
                .map(|template| format!("{}.{}", template.name, template.id.map_or(0, |id| id.0))),
        ];
        let said = NAMES.into_iter().zip(values);
        let entries = said.filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let life = self.life.entries().map(|(name, number)| format!("{name}={number}"));
        entries.chain(life).collect::<Vec<String>>().join(" ")
    }

    /// What [`to_text`](Self::to_text) has written.
    ///
    /// # Errors
    /// The first entry that it has not.
    pub fn from_text(text: &str) -> Result<Settings, Unreadable> {
        let mut settings = Settings::default();
        for entry in text.split(' ').filter(|entry| !entry.is_empty()) {
            let (name, value) = entry.split_once('=').ok_or(entry)?;
            match name {
                "delete_protection" => settings.delete_protection = value == "1",
                "block_reads" => settings.block_reads = value == "1",
                "block_writes" => settings.block_writes = value == "1",
                "block_reason" => {
                    settings.block_reason = Some(unescaped(value).ok_or(entry)?.into());
                }
                "tokens_after_s" => settings.tokens_after_s = value.parse().map_err(|_| entry)?,
                "jwt_keys" => {
                    let keys = value.split(',').map(key_of);
                    settings.jwt_keys = keys.collect::<Option<_>>().ok_or(entry)?;
                    if settings.jwt_keys.len() > limits::JWT_KEYS_MAX {
                        return Err(entry.into());
                    }
                }
                "template" => {
                    let (name, id) = value.split_once('.').ok_or(entry)?;
                    let id = Some(TenantId(id.parse().map_err(|_| entry)?));
                    settings.template = Some(Template { name: name.into(), id });
                }
                _ => settings.life.read(name, value).ok_or(entry)?.map_err(|_| entry)?,
            }
        }
        if settings.to_text() == text { Ok(settings) } else { Err(text.into()) }
    }
}

fn hex_of(key: &PublicKey) -> String {
    key.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}

fn key_of(text: &str) -> Option<PublicKey> {
    let mut key = [0; 32];
    if text.len() != 2 * key.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(key)
}

fn escaped(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b',' => {
                text.push(char::from(byte));
            }
            _ => write!(text, "%{byte:02X}").expect("a String takes every write"),
        }
        text
    })
}

fn unescaped(value: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match first {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_as_they_were_written() {
        let mut life = LifeChange::default();
        life.set(crate::life::Part::Ttl, Some(60));
        life.set(crate::life::Part::OnEnd, Some(1));
        let full = Settings {
            delete_protection: true,
            block_reads: true,
            block_writes: true,
            block_reason: Some("moved away: a=b, 100 % é\n".into()),
            tokens_after_s: 1_790_000_000,
            jwt_keys: vec![[0xab; 32], [7; 32]],
            template: Some(Template { name: "a-b_9".into(), id: Some(TenantId(17)) }),
            life: Life::NOTHING.changed(&life),
        };
        let text = full.to_text();
        assert_eq!(Settings::from_text(&text), Ok(full), "{text}");
        assert!(text.contains("block_reason=moved%20away%3A%20a%3Db,%20100%20%25%20%C3%A9%0A"));
        assert!(text.ends_with(" template=a-b_9.17 ttl_s=60 on_end=1"), "{text}");
        assert_eq!(Settings::default().to_text(), "");
        assert_eq!(Settings::from_text(""), Ok(Settings::NOTHING));
    }

    #[test]
    fn other_texts_are_not_read() {
        for text in [
            "colour=1",
            "block_reads",
            "block_reads=0",
            "block_reads=2",
            "block_writes=1 block_reads=1",
            "block_reads=1  block_writes=1",
            " block_reads=1",
            "block_reason=%2",
            "block_reason=%zz",
            "block_reason=a b",
            "block_reason=%ff",
            "tokens_after_s=-1",
            "tokens_after_s=01",
            "jwt_keys=00",
            "jwt_keys=",
            "ttl_s=01",
            "ttl_s=-1",
            "on_end=2",
            "on_end=1 ttl_s=1",
            "template=a",
            "template=a.01",
        ] {
            assert!(Settings::from_text(text).is_err(), "{text}");
        }
        let five = vec![[1; 32]; limits::JWT_KEYS_MAX + 1];
        let text = Settings { jwt_keys: five, ..Settings::default() }.to_text();
        assert!(Settings::from_text(&text).is_err());
    }

    #[test]
    fn each_rotation_is_later_than_the_one_before() {
        let rotate = SettingsChange { rotate_tokens: true, ..SettingsChange::default() };
        let first = Settings::default().changed(&rotate, 100);
        assert_eq!(first.tokens_after_s, 101);
        assert_eq!(first.changed(&rotate, 100).tokens_after_s, 102);
        assert_eq!(first.changed(&rotate, 200).tokens_after_s, 201);
        assert_eq!(first.changed(&SettingsChange::default(), 300), first);
    }
}
