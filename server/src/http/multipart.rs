//! The one file of a form (`multipart/form-data`, RFC 7578), out of a body that comes in pieces.
//!
//! ```text
//! --boundary CRLF  content-disposition: form-data; name="file"; filename="…" CRLF CRLF  bytes
//! CRLF --boundary CRLF … CRLF --boundary-- epilogue
//! ```
//!
//! Pure, and holds no more than a part's head or a boundary that has begun. Parts of other names are passed
//! over; two files are refused, because which one is meant nobody could tell.

use memchr::memmem;

use crate::problem::Problem;

/// Longest boundary, in bytes (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// Longest head of a part, and longest line behind a boundary: names of files, as people write them.
const HEAD_BYTES_MAX: usize = 4096;

/// The name of the part that is the file.
const FILE: &str = "file";

/// Where in a form the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In what is not wanted: before the first boundary, or in another part.
    PassedOver,
    /// In the file.
    File,
    /// Behind a boundary.
    Boundary,
    /// In the head of a part; the line end before it is still there.
    Head,
    /// Behind the last boundary.
    End,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Multipart {
    /// A boundary with the line end and the dashes before it.
    delimiter: Vec<u8>,
    /// What has come and cannot be told yet.
    held: Vec<u8>,
    state: State,
    found: bool,
}

impl Multipart {
    /// A form, if that is what this content type says.
    ///
    /// # Errors
    /// 400 for a form without a boundary that may be one.
    pub fn of(content_type: &str) -> Result<Option<Multipart>, Problem> {
        let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Ok(None);
        }
        let boundary = parameter(parameters, "boundary").unwrap_or_default();
        if boundary.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX {
            return Err(bad("its content type has no boundary of 1 to 70 bytes"));
        }
        // The first boundary has no line end before it: this one.
        let (delimiter, held) = (format!("\r\n--{boundary}").into_bytes(), b"\r\n".to_vec());
        Ok(Some(Multipart { delimiter, held, state: State::PassedOver, found: false }))
    }

    /// Leave of a piece of the body what is of the file.
    ///
    /// # Errors
    /// 400 for what is no form, or has two files.
    pub fn strip(&mut self, piece: &mut Vec<u8>) -> Result<(), Problem> {
        let mut input = std::mem::take(&mut self.held);
        input.append(piece);
        let mut at = 0;
        while let Some(next) = self.step(&input, at, piece)? {
            at = next;
        }
        self.held = self.let_out(&input[at..], piece).to_vec();
        Ok(())
    }

    /// The body is at its end.
    ///
    /// # Errors
    /// 400 if the form is not, or has no file.
    pub fn finish(&self) -> Result<(), Problem> {
        if self.state != State::End {
            return Err(bad("it breaks off before its last boundary"));
        }
        if self.found { Ok(()) } else { Err(bad("it has no part with the name \"file\"")) }
    }

    /// Go on behind `at`: up to where; nothing if more has to come first.
    fn step(
        &mut self,
        input: &[u8],
        at: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Problem> {
        let rest = &input[at..];
        match self.state {
            State::PassedOver | State::File => {
                let Some(found) = memmem::find(rest, &self.delimiter) else { return Ok(None) };
                if self.state == State::File {
                    out.extend_from_slice(&rest[..found]);
                }
                self.state = State::Boundary;
                Ok(Some(at + found + self.delimiter.len()))
            }
            State::Boundary if rest.starts_with(b"--") => {
                self.state = State::End;
                Ok(Some(at + 2))
            }
            State::Boundary => {
                let Some(end) = memmem::find(rest, b"\r\n") else { return short(rest) };
                if !rest[..end].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
                    return Err(bad("something stands behind a boundary"));
                }
                self.state = State::Head;
                Ok(Some(at + end))
            }
            State::Head => {
                let Some(end) = memmem::find(rest, b"\r\n\r\n") else { return short(rest) };
                self.state = State::PassedOver;
                if is_file(&rest[..end]) {
                    self.state = State::File;
                    if std::mem::replace(&mut self.found, true) {
                        return Err(bad("it has two files"));
                    }
                }
                // A part without a byte has its boundary's line end here.
                Ok(Some(at + end + 4))
            }
            State::End => Ok(None),
        }
    }

    /// The file's bytes go out, but for what may be the beginning of a boundary: that is kept, as is all of
    /// a head that has begun.
    fn let_out<'a>(&self, rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        match self.state {
            State::Boundary | State::Head => rest,
            State::End => &[],
            State::PassedOver | State::File => {
                let (told, kept) =
                    rest.split_at(rest.len().saturating_sub(self.delimiter.len() - 1));
                if self.state == State::File {
                    out.extend_from_slice(told);
                }
                kept
            }
        }
    }
}

/// More of a line or head has to come, unless it is too long already.
fn short(rest: &[u8]) -> Result<Option<usize>, Problem> {
    match rest.len() > HEAD_BYTES_MAX {
        true => Err(bad("the head of a part is longer than 4096 bytes")),
        false => Ok(None),
    }
}

/// Whether the part with this head is the file.
fn is_file(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    head.split("\r\n").any(|line| {
        let Some((field, value)) = line.split_once(':') else { return false };
        field.trim().eq_ignore_ascii_case("content-disposition")
            && value.split_once(';').and_then(|(_, rest)| parameter(rest, "name")).as_deref()
                == Some(FILE)
    })
}

/// A parameter of a field's value: `; name=token; name="quoted \" text"`.
fn parameter(mut rest: &str, wanted: &str) -> Option<String> {
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let mut text = String::new();
        let end = match value.strip_prefix('"') {
            None => {
                let end = value.find(';').unwrap_or(value.len());
                text.push_str(value[..end].trim_end());
                end
            }
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.char_indices().find_map(|(index, letter)| {
                    if !escaped && letter == '"' {
                        return Some(index);
                    }
                    escaped = !escaped && letter == '\\';
                    if !escaped {
                        text.push(letter);
                    }
                    None
                })?;
                1 + end + 1
            }
        };
        if name.trim_matches([' ', '\t', ';']).eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = value[end..].split_once(';').map_or("", |(_, rest)| rest);
    }
    None
}

fn bad(what: &str) -> Problem {
    let text = format!("the form cannot be read: {what}");
    let log = "a multipart form cannot be read";
    Problem { close: true, ..Problem::detailed(400, "FORM_INVALID", log, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/form-data; boundary=b0";

    /// What comes out of a form that arrives in pieces of this length.
    fn read(body: &str, piece_bytes: usize) -> Result<String, Problem> {
        let mut form = Multipart::of(KIND)?.expect("it is a form");
        let mut file = Vec::new();
        for bytes in body.as_bytes().chunks(piece_bytes) {
            let mut piece = bytes.to_vec();
            form.strip(&mut piece)?;
            file.extend_from_slice(&piece);
            assert!(form.held.len() <= HEAD_BYTES_MAX + form.delimiter.len() + piece_bytes);
        }
        form.finish()?;
        Ok(String::from_utf8(file).expect("UTF-8"))
    }

    #[test]
    fn the_file_is_the_same_however_it_is_cut() {
        let disposition = "Content-Disposition: form-data; filename=\"a;name=x\"; name=\"file\"";
        let content = "--b0\r\n--b\r\n\r\n--\r\nSELECT 1;\r\n";
        for (body, wanted) in [
            (format!("--b0\r\n{disposition}\r\n\r\n{content}\r\n--b0--\r\n"), content),
            (format!("preamble\r\n--b0  \r\n{disposition}\r\n\r\n\r\n--b0--"), ""),
            (
                format!(
                    "--b0\r\ncontent-disposition: form-data; name=note\r\n\r\nx\r\n--b0\r\nA: b\r\n\
                     {disposition}\r\n\r\n{content}\r\n--b0\r\n\r\n\r\n--b0--epilogue --b0"
                ),
                content,
            ),
        ] {
            for piece_bytes in [1, 2, 3, 7, 16, body.len()] {
                assert_eq!(
                    read(&body, piece_bytes).as_deref(),
                    Ok(wanted),
                    "{piece_bytes}: {body}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let file = "--b0\r\ncontent-disposition: form-data; name=file\r\n\r\nx\r\n";
        let long = format!("--b0\r\nx: {}\r\n\r\n--b0--", "y".repeat(2 * HEAD_BYTES_MAX));
        for body in [
            "",
            "SELECT 1;",
            file,
            "--b0--",
            "--b0\r\ncontent-disposition: form-data; name=other\r\n\r\nx\r\n--b0--",
            "--b0 x\r\n",
            &format!("{file}{file}--b0--"),
            &long,
        ] {
            for piece_bytes in [1, 5, body.len().max(1)] {
                let problem = read(body, piece_bytes).expect_err(body);
                assert_eq!((problem.status, problem.code), (400, "FORM_INVALID"), "{body}");
            }
        }
        for kind in ["multipart/form-data", "multipart/form-data; boundary=\"\""] {
            assert!(Multipart::of(kind).is_err(), "{kind}");
        }
        assert!(Multipart::of("application/sql").expect("no form").is_none());
        let quoted = "Multipart/Form-Data; charset=utf-8; boundary=\"a \\\"b\\\"\"";
        let form = Multipart::of(quoted).expect("a boundary").expect("a form");
        assert_eq!(form.delimiter, b"\r\n--a \"b\"");
    }
}
