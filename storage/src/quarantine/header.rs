//! The first bytes of a SQLite file, as its format says them: what a stranger's file must be before
//! SQLite itself may look at it.
//!
//! Pure. Offsets and meanings are those of "Database File Format" 1.3 and 1.6 in SQLite's manual. What is
//! checked is what SQLite would refuse, and more: sizes must fit together to the byte, so that a file
//! that was cut, or that claims more than it has, is told from a damaged one.

/// Bytes of the file that [`check`] looks at: the header, and the first ones of the page behind it.
pub const HEADER_BYTES: usize = 104;

/// What every SQLite file begins with.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The smallest page, and so the smallest file.
pub const PAGE_BYTES_MIN: u32 = 512;

/// The largest page.
pub const PAGE_BYTES_MAX: u32 = 65_536;

/// Bytes of a page that must be left beside the reserved ones.
const USABLE_BYTES_MIN: u32 = 480;

/// How texts are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8; also a database without any table.
    Utf8,
    /// UTF-16, little-endian.
    Utf16Le,
    /// UTF-16, big-endian.
    Utf16Be,
}

/// What a good header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Of them, those at the end that SQLite leaves alone.
    pub reserved_bytes: u8,
    /// Pages of the database; the file may have more behind them, which mean nothing.
    pub pages: u32,
    /// How texts are stored.
    pub encoding: Encoding,
    /// The file is in WAL mode: what its WAL had is in it only if its last user closed it properly.
    pub wal: bool,
}

/// Why bytes are not a SQLite file that may be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// It is something else, which these bytes tell.
    Compressed(&'static str),
    /// It does not begin as SQLite files do.
    NotSqlite,
    /// It has fewer bytes than a file can have.
    TooShort(u64),
    /// It is cut off: so many bytes are there, and so many should be.
    Truncated {
        /// Bytes that are there.
        has: u64,
        /// Bytes that its header speaks of, or that would make its last page whole.
        wants: u64,
    },
    /// A field has a value that it cannot have.
    Field {
        /// Where it is, in bytes from the start.
        offset: usize,
        /// Its name in SQLite's manual.
        name: &'static str,
        /// What it says.
        value: u64,
    },
}

impl std::fmt::Display for BadHeader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadHeader::Compressed(format) => {
                write!(formatter, "it is compressed ({format}): send the database file itself")
            }
            BadHeader::NotSqlite => write!(
                formatter,
                "byte 0: it does not begin with \"SQLite format 3\": it is no SQLite database, or an \
                 encrypted one"
            ),
            BadHeader::TooShort(bytes) => write!(
                formatter,
                "it has {bytes} bytes, and the smallest SQLite database has {PAGE_BYTES_MIN}"
            ),
            BadHeader::Truncated { has, wants } => {
                write!(formatter, "it ends after {has} bytes, and its header speaks of {wants}")
            }
            BadHeader::Field { offset, name, value } => {
                write!(formatter, "byte {offset}: its {name} is {value}, which it cannot be")
            }
        }
    }
}

/// Judge the beginning of a file of which not all has come yet.
///
/// # Errors
/// It cannot be a SQLite file whatever follows.
pub fn check_start(start: &[u8]) -> Result<(), BadHeader> {
    const COMPRESSED: [(&[u8], &str); 6] = [
        (b"\x1f\x8b", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ];
    if let Some((_, name)) = COMPRESSED.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(BadHeader::Compressed(name));
    }
    let known = start.len().min(MAGIC.len());
    if start[..known] == MAGIC[..known] { Ok(()) } else { Err(BadHeader::NotSqlite) }
}

/// Judge the first bytes of a file of `file_bytes` bytes. `start` has [`HEADER_BYTES`] of them, or all.
///
/// # Errors
/// What is wrong, and where.
pub fn check(start: &[u8], file_bytes: u64) -> Result<FileHeader, BadHeader> {
    check_start(start)?;
    if file_bytes < u64::from(PAGE_BYTES_MIN) || start.len() < HEADER_BYTES {
        return Err(BadHeader::TooShort(file_bytes));
    }
    let long = |offset: usize| {
        u32::from_be_bytes(start[offset..offset + 4].try_into().expect("four bytes of more"))
    };
    let field = |offset, name, value: u32| BadHeader::Field { offset, name, value: value.into() };
    let page_bytes = match u16::from_be_bytes([start[16], start[17]]) {
        1 => PAGE_BYTES_MAX,
        bytes => u32::from(bytes),
    };
    if !page_bytes.is_power_of_two() || page_bytes < PAGE_BYTES_MIN {
        return Err(field(16, "page size", page_bytes));
    }
    for (offset, name) in [(18, "write version"), (19, "read version")] {
        if !matches!(start[offset], 1 | 2) {
            return Err(field(offset, name, start[offset].into()));
        }
    }
    let reserved_bytes = start[20];
    if page_bytes - u32::from(reserved_bytes) < USABLE_BYTES_MIN {
        return Err(field(20, "reserved space", reserved_bytes.into()));
    }
    let fractions = [
        (21, 64, "maximum payload fraction"),
        (22, 32, "minimum payload fraction"),
        (23, 32, "leaf payload fraction"),
    ];
    for (offset, value, name) in fractions {
        if start[offset] != value {
            return Err(field(offset, name, start[offset].into()));
        }
    }
    let pages = check_size(long(24), long(28), long(92), page_bytes, file_bytes)?;
    for (offset, name) in [(32, "first page of the freelist"), (36, "number of free pages")] {
        if long(offset) > pages {
            return Err(field(offset, name, long(offset)));
        }
    }
    if long(44) > 4 {
        return Err(field(44, "schema format", long(44)));
    }
    if long(52) > pages {
        return Err(field(52, "largest root page", long(52)));
    }
    let encoding = match long(56) {
        0 | 1 => Encoding::Utf8,
        2 => Encoding::Utf16Le,
        3 => Encoding::Utf16Be,
        other => return Err(field(56, "text encoding", other)),
    };
    // Page 1 is the root of the schema's table: an inner page or a leaf of it.
    if !matches!(start[100], 0x05 | 0x0d) {
        return Err(field(100, "kind of page 1", start[100].into()));
    }
    let wal = start[18] == 2 || start[19] == 2;
    Ok(FileHeader { page_bytes, reserved_bytes, pages, encoding, wal })
}

/// Pages of the database: as the header says if that is up to date, else as many as the file has.
fn check_size(
    change_counter: u32,
    claimed: u32,
    valid_for: u32,
    page_bytes: u32,
    file_bytes: u64,
) -> Result<u32, BadHeader> {
    let whole = file_bytes / u64::from(page_bytes);
    let claims = claimed > 0 && change_counter == valid_for;
    if claims && u64::from(claimed) > whole {
        let wants = u64::from(claimed) * u64::from(page_bytes);
        return Err(BadHeader::Truncated { has: file_bytes, wants });
    }
    if !file_bytes.is_multiple_of(u64::from(page_bytes)) {
        let wants = (whole + 1).saturating_mul(u64::from(page_bytes));
        return Err(BadHeader::Truncated { has: file_bytes, wants });
    }
    let pages = if claims { u64::from(claimed) } else { whole };
    u32::try_from(pages).map_err(|_| BadHeader::Field {
        offset: 28,
        name: "size in pages",
        value: pages,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..24].copy_from_slice(&[0x10, 0, 1, 1, 0, 64, 32, 32]);
        bytes[27] = 7;
        bytes[31] = 3;
        bytes[47] = 4;
        bytes[59] = 1;
        bytes[95] = 7;
        bytes[100] = 0x0d;
        bytes
    }

    fn with(changes: &[(usize, u8)]) -> Vec<u8> {
        let mut bytes = good();
        for &(offset, byte) in changes {
            bytes[offset] = byte;
        }
        bytes
    }

    #[test]
    fn a_good_header_is_read() {
        let read = check(&good(), 3 * 4096).expect("it is good");
        let header = FileHeader {
            page_bytes: 4096,
            reserved_bytes: 0,
            pages: 3,
            encoding: Encoding::Utf8,
            wal: false,
        };
        assert_eq!(read, header);
        let wal = check(&with(&[(18, 2), (19, 2), (59, 3), (20, 24)]), 4 * 4096).expect("good too");
        assert!(wal.wal && wal.encoding == Encoding::Utf16Be && wal.reserved_bytes == 24);
        // Pages behind the database's mean nothing; an old size does not either.
        assert_eq!(wal.pages, 3);
        assert_eq!(check(&with(&[(95, 8)]), 5 * 4096).expect("good").pages, 5);
        let large = check(&with(&[(16, 0), (17, 1)]), 3 * 65_536).expect("pages of 64 KiB");
        assert_eq!(large.page_bytes, 65_536);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let text = |bytes: &[u8], size| check(bytes, size).expect_err("it is bad").to_string();
        for (changes, said) in [
            (&[(16, 3)][..], "byte 16: its page size is 768, which it cannot be"),
            (&[(16, 0), (17, 0)], "byte 16: its page size is 0, which it cannot be"),
            (&[(18, 3)], "byte 18: its write version is 3, which it cannot be"),
            (&[(21, 65)], "byte 21: its maximum payload fraction is 65, which it cannot be"),
            (&[(35, 4)], "byte 32: its first page of the freelist is 4, which it cannot be"),
            (&[(47, 5)], "byte 44: its schema format is 5, which it cannot be"),
            (&[(59, 4)], "byte 56: its text encoding is 4, which it cannot be"),
            (&[(100, 0x0a)], "byte 100: its kind of page 1 is 10, which it cannot be"),
            (&[(31, 4)], "it ends after 12288 bytes, and its header speaks of 16384"),
            (
                &[(0, b'P'), (1, b'K'), (2, 3), (3, 4)],
                "it is compressed (zip): send the database file itself",
            ),
        ] {
            assert_eq!(text(&with(changes), 3 * 4096), said);
        }
        assert_eq!(
            text(&good(), 3 * 4096 + 1),
            "it ends after 12289 bytes, and its header speaks of 16384"
        );
        assert!(text(b"hello", 5).starts_with("byte 0: it does not begin"));
        assert!(text(b"", 0).starts_with("it has 0 bytes"));
        let small = with(&[(16, 2), (17, 0), (20, 33)]);
        assert_eq!(text(&small, 3 * 512), "byte 20: its reserved space is 33, which it cannot be");
    }

    /// Whatever the bytes are, the answer is one, and what is accepted fits the file.
    #[test]
    fn any_bytes_are_judged() {
        let mut state = 0x5eed_u64;
        let mut draw = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut bytes = good();
            for _ in 0..draw() % 4 {
                let offset = draw() % bytes.len();
                bytes[offset] = match draw() % 3 {
                    0 => draw() as u8,
                    1 => bytes[offset] ^ 1 << (draw() % 8),
                    _ => [0, 1, 2, 255][draw() % 4],
                };
            }
            bytes.truncate(if draw() % 8 == 0 {
                draw() % (HEADER_BYTES + 1)
            } else {
                HEADER_BYTES
            });
            let size = [0, 512, 4096, 12_288, 65_536, u64::MAX, 3 * 65_536][draw() % 7];
            if let Ok(header) = check(&bytes, size) {
                accepted += 1;
                assert!(header.page_bytes.is_power_of_two() && header.page_bytes >= 512);
                assert!(header.pages >= 1);
                assert!(u64::from(header.pages) * u64::from(header.page_bytes) <= size);
            }
        }
        assert!(accepted > 1_000);
    }
}
