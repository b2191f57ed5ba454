//! SQL functions of ours in the place of SQLite's.
//!
//! - `random`, `randomblob`: from the tenant's own generator, so that runs repeat and no tenant learns
//!   of another's numbers (F13).
//! - `instr`, `replace`, `trim`, `ltrim`, `rtrim`, `hex`, `upper`, `lower`: SQLite's run within one step of
//!   its virtual machine, some of them for seconds on values of a megabyte. These give up the turn as
//!   they go, and end when the statement is interrupted. Results and errors are SQLite's own; the tests
//!   compare them.
//!
//! They are built into SQLite (`myriad_hooks.h`): to give them to each connection took a quarter of the
//! time of opening it. Memory comes from SQLite's allocator, so it is booked on the tenant.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::{ptr, slice};

use memchr::memchr;
use memchr::memmem::Finder;
use rusqlite::ffi;

use crate::fiber::{self, with_volume};

/// Bytes looked at between two looks at the turn: some 10 µs.
const STRETCH_BYTES: usize = 16 * 1024;

/// What a place where a text may be costs, beside the bytes before it, as so many bytes.
const PLACE_BYTES: usize = 48;

/// Shorter texts to look for are compared at each place where their first byte is: that is faster.
const FINDER_BYTES_MIN: usize = 9;

/// What answers a call, in the order of `MYRIAD_FUNCTIONS` in `myriad_hooks.h`.
const FUNCTIONS: [SqlFunction; 8] = [
    random_integer,
    random_blob,
    call::<Instr>,
    call::<Replace>,
    trim,
    call::<Hex>,
    call::<Upper>,
    call::<Lower>,
];

type SqlFunction =
    unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Answer a call of one of SQLite's functions in its place; 0 where it is not a fiber's: SQLite does
/// it itself then.
pub(crate) unsafe extern "C" fn answer(
    number: c_int,
    context: *mut ffi::sqlite3_context,
    count: c_int,
    values: *mut *mut ffi::sqlite3_value,
) -> c_int {
    if !is_ours() {
        return 0;
    }
    // SAFETY: SQLite's arguments for the length of this call.
    unsafe { FUNCTIONS[number as usize](context, count, values) };
    1
}

fn is_ours() -> bool {
    #[cfg(test)]
    if tests::count_call() {
        return true;
    }
    fiber::is_running()
}

/// Why a function has no result.
enum Failure {
    /// The statement is interrupted.
    Interrupted,
    /// The result would be longer than a value may be.
    TooBig,
    /// The tenant has no memory.
    NoMemory,
}

/// A function's result, still SQLite's to copy or take over.
enum Outcome<'a> {
    Null,
    Integer(i64),
    /// A part of an argument.
    Text(&'a [u8]),
    /// Made by the function.
    Made(Output),
}

trait Function {
    /// # Errors
    /// [`Failure`].
    fn result<'a>(arguments: &Arguments<'a>) -> Result<Outcome<'a>, Failure>;
}

/// Counts bytes worked on and gives up the turn where they are enough.
#[derive(Default)]
struct Stretch {
    bytes: usize,
}

impl Stretch {
    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes += bytes;
        if self.bytes < STRETCH_BYTES {
            return Ok(());
        }
        self.bytes = 0;
        if fiber::on_stretch() { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Count all of a long text before the step that goes over its next part, part by part.
    fn parts<'a>(&mut self, text: &'a [u8], mut each: impl FnMut(&'a [u8])) -> Result<(), Failure> {
        for part in text.chunks(STRETCH_BYTES) {
            self.count(part.len())?;
            each(part);
        }
        Ok(())
    }
}

/// The arguments of a call.
struct Arguments<'a> {
    context: *mut ffi::sqlite3_context,
    values: &'a [*mut ffi::sqlite3_value],
}

impl<'a> Arguments<'a> {
    fn kind(&self, index: usize) -> c_int {
        // SAFETY: an argument of the running call.
        unsafe { ffi::sqlite3_value_type(self.values[index]) }
    }

    /// The argument as text; `None` for NULL.
    fn text(&self, index: usize) -> Result<Option<&'a [u8]>, Failure> {
        if self.kind(index) == ffi::SQLITE_NULL {
            return Ok(None);
        }
        // SAFETY: SQLite keeps an argument until the call returns.
        unsafe { text_of(self.values[index]) }.map(Some)
    }

    /// The argument as bytes; of none for NULL.
    fn blob(&self, index: usize) -> Result<&'a [u8], Failure> {
        let value = self.values[index];
        // SAFETY: as in `text`. An empty value has no address.
        unsafe {
            let start = ffi::sqlite3_value_blob(value).cast::<u8>();
            let length = ffi::sqlite3_value_bytes(value) as usize;
            match (start.is_null(), length) {
                (_, 0) => Ok(&[]),
                (true, _) => Err(Failure::NoMemory),
                (false, _) => Ok(slice::from_raw_parts(start, length)),
            }
        }
    }

    /// Room for a result of `bytes` bytes.
    fn output(&self, bytes: usize) -> Result<Output, Failure> {
        if bytes + 1 > self.length_limit() {
            return Err(Failure::TooBig);
        }
        Output::new(bytes)
    }

    /// The most bytes of a value.
    fn length_limit(&self) -> usize {
        // SAFETY: the connection of the running call; -1 asks for the limit.
        let limit = unsafe {
            let db = ffi::sqlite3_context_db_handle(self.context);
            ffi::sqlite3_limit(db, ffi::SQLITE_LIMIT_LENGTH, -1)
        };
        limit as usize
    }
}

/// A value as text.
///
/// # Safety
/// The value lives as long as the caller uses the text, and is not changed meanwhile.
unsafe fn text_of<'a>(value: *mut ffi::sqlite3_value) -> Result<&'a [u8], Failure> {
    // SAFETY: the caller's promise; asking for the length after the text does not move it.
    unsafe {
        let start = ffi::sqlite3_value_text(value);
        if start.is_null() {
            return Err(Failure::NoMemory);
        }
        let length = ffi::sqlite3_value_bytes(value) as usize;
        Ok(slice::from_raw_parts(start, length))
    }
}

/// A value of its own with an argument's content.
struct Duplicate(*mut ffi::sqlite3_value);

impl Duplicate {
    fn of(value: *mut ffi::sqlite3_value) -> Result<Duplicate, Failure> {
        // SAFETY: an argument of the running call.
        let duplicate = unsafe { ffi::sqlite3_value_dup(value) };
        if duplicate.is_null() { Err(Failure::NoMemory) } else { Ok(Duplicate(duplicate)) }
    }

    fn text(&self) -> Result<&[u8], Failure> {
        // SAFETY: the value is ours.
        unsafe { text_of(self.0) }
    }
}

impl Drop for Duplicate {
    fn drop(&mut self) {
        // SAFETY: made by `sqlite3_value_dup`.
        unsafe { ffi::sqlite3_value_free(self.0) };
    }
}

/// A result under construction, in SQLite's memory, filled from its start.
struct Output {
    start: *mut u8,
    length: usize,
    room: usize,
}

impl Output {
    fn new(room: usize) -> Result<Output, Failure> {
        // SAFETY: an allocation; one byte more for the end.
        let start = unsafe { ffi::sqlite3_malloc64(room as u64 + 1) }.cast::<u8>();
        if start.is_null() {
            return Err(Failure::NoMemory);
        }
        Ok(Output { start, length: 0, room })
    }

    fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room - self.length, "a result is longer than was counted");
        // SAFETY: there is room, as asserted; the argument is not this allocation.
        unsafe {
            let place = self.start.add(self.length);
            ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
        }
        self.length += bytes.len();
    }

    /// Add long bytes part by part.
    fn push_all(&mut self, bytes: &[u8], stretch: &mut Stretch) -> Result<(), Failure> {
        stretch.parts(bytes, |part| self.push(part))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; null was handed over.
        unsafe { ffi::sqlite3_free(self.start.cast()) };
    }
}

/// What SQLite calls.
unsafe extern "C" fn call<F: Function>(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite's arguments for the length of this call.
    let values = unsafe { slice::from_raw_parts(values, count as usize) };
    let outcome = F::result(&Arguments { context, values });
    // SAFETY: SQLite's context for the length of this call. It copies a part of an argument, and gets
    // an output with its own free function.
    unsafe {
        match outcome {
            Ok(Outcome::Null) => ffi::sqlite3_result_null(context),
            Ok(Outcome::Integer(value)) => ffi::sqlite3_result_int64(context, value),
            Ok(Outcome::Text(text)) => {
                let start = text.as_ptr().cast();
                let length = text.len() as u64;
                let copied = ffi::SQLITE_TRANSIENT();
                let encoding = ffi::SQLITE_UTF8 as u8;
                ffi::sqlite3_result_text64(context, start, length, copied, encoding);
            }
            Ok(Outcome::Made(mut output)) => {
                let start = std::mem::replace(&mut output.start, ptr::null_mut());
                start.add(output.length).write(0);
                let length = output.length as u64;
                let free: unsafe extern "C" fn(*mut c_void) = ffi::sqlite3_free;
                let encoding = ffi::SQLITE_UTF8 as u8;
                ffi::sqlite3_result_text64(context, start.cast(), length, Some(free), encoding);
            }
            Err(Failure::Interrupted) => {
                ffi::sqlite3_result_error_code(context, ffi::SQLITE_INTERRUPT);
            }
            Err(Failure::TooBig) => ffi::sqlite3_result_error_toobig(context),
            Err(Failure::NoMemory) => ffi::sqlite3_result_error_nomem(context),
        }
    }
}

/// Finds a text in another, again and again, in time that grows with their lengths and not with the
/// product. The longest step between two looks at the turn goes over twice the text to look for: some
/// 4 ms where that is as long as a value may be.
struct Search<'a> {
    needle: &'a [u8],
    finder: Option<Finder<'a>>,
}

impl<'a> Search<'a> {
    fn new(needle: &'a [u8]) -> Search<'a> {
        assert!(!needle.is_empty(), "nothing is everywhere");
        let finder = (needle.len() >= FINDER_BYTES_MIN).then(|| Finder::new(needle));
        Search { needle, finder }
    }

    /// Where the needle is first at or after `from`.
    fn find(
        &self,
        haystack: &[u8],
        mut from: usize,
        stretch: &mut Stretch,
    ) -> Result<Option<usize>, Failure> {
        let tail = self.needle.len() - 1;
        while from + self.needle.len() <= haystack.len() {
            let end = (from + STRETCH_BYTES.max(tail) + tail).min(haystack.len());
            let window = &haystack[from..end];
            let skipped = match &self.finder {
                Some(finder) => finder.find(window),
                None => memchr(self.needle[0], &window[..window.len() - tail]),
            };
            let Some(skipped) = skipped else {
                stretch.count(window.len())?;
                from = end - tail;
                continue;
            };
            stretch.count(skipped + self.needle.len() + PLACE_BYTES)?;
            from += skipped;
            if self.finder.is_some() || haystack[from..].starts_with(self.needle) {
                return Ok(Some(from));
            }
            from += 1;
        }
        Ok(None)
    }
}

/// Inside a character of UTF-8, as SQLite looks at it.
fn continues(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

struct Instr;

impl Function for Instr {
    fn result<'a>(arguments: &Arguments<'a>) -> Result<Outcome<'a>, Failure> {
        let kinds = [arguments.kind(0), arguments.kind(1)];
        if kinds.contains(&ffi::SQLITE_NULL) {
            return Ok(Outcome::Null);
        }
        let is_text = kinds != [ffi::SQLITE_BLOB; 2];
        // To read a BLOB as text turns the value itself into one.
        let copies;
        let (haystack, needle) = if !is_text {
            (arguments.blob(0)?, arguments.blob(1)?)
        } else if kinds.contains(&ffi::SQLITE_BLOB) {
            copies = [Duplicate::of(arguments.values[0])?, Duplicate::of(arguments.values[1])?];
            (copies[0].text()?, copies[1].text()?)
        } else {
            (arguments.text(0)?.unwrap_or_default(), arguments.text(1)?.unwrap_or_default())
        };
        let mut stretch = Stretch::default();
        if needle.is_empty() {
            return Ok(Outcome::Integer(1));
        }
        // A needle that begins inside a character is at the start or nowhere.
        let haystack = match is_text && continues(needle[0]) {
            true => &haystack[..haystack.len().min(needle.len())],
            false => haystack,
        };
        let Some(place) = Search::new(needle).find(haystack, 0, &mut stretch)? else {
            return Ok(Outcome::Integer(0));
        };
        if !is_text {
            return Ok(Outcome::Integer(place as i64 + 1));
        }
        let mut characters = 1;
        // The first byte begins a character, whatever it is; so does the needle's.
        let passed = haystack.get(1..=place).unwrap_or_default();
        stretch.parts(passed, |part| {
            characters += part.iter().filter(|byte| !continues(**byte)).count();
        })?;
        Ok(Outcome::Integer(characters as i64))
    }
}

struct Replace;

impl Function for Replace {
    fn result<'a>(arguments: &Arguments<'a>) -> Result<Outcome<'a>, Failure> {
        let Some(text) = arguments.text(0)? else { return Ok(Outcome::Null) };
        let Some(pattern) = arguments.text(1)? else { return Ok(Outcome::Null) };
        if pattern.first().is_none_or(|byte| *byte == 0) {
            return Ok(Outcome::Text(text));
        }
        let Some(replacement) = arguments.text(2)? else { return Ok(Outcome::Null) };
        let limit = arguments.length_limit();
        if text.len() + 1 > limit {
            return Err(Failure::TooBig);
        }
        let search = Search::new(pattern);
        let mut stretch = Stretch::default();
        let mut length = text.len();
        if replacement.len() > pattern.len() {
            let mut from = 0;
            while let Some(place) = search.find(text, from, &mut stretch)? {
                from = place + pattern.len();
                length += replacement.len() - pattern.len();
                if length > limit {
                    return Err(Failure::TooBig);
                }
            }
        }
        let mut output = Output::new(length)?;
        let mut from = 0;
        while let Some(place) = search.find(text, from, &mut stretch)? {
            output.push_all(&text[from..place], &mut stretch)?;
            output.push_all(replacement, &mut stretch)?;
            from = place + pattern.len();
        }
        output.push_all(&text[from..], &mut stretch)?;
        Ok(Outcome::Made(output))
    }
}

/// `ltrim`, `rtrim` or `trim`: SQLite has one function for them, whose own data says which ends.
unsafe extern "C" fn trim(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite's arguments for the length of this call.
    unsafe {
        match ffi::sqlite3_user_data(context) as usize {
            1 => call::<Trim<true, false>>(context, count, values),
            2 => call::<Trim<false, true>>(context, count, values),
            _ => call::<Trim<true, true>>(context, count, values),
        }
    }
}

struct Trim<const LEFT: bool, const RIGHT: bool>;

impl<const LEFT: bool, const RIGHT: bool> Function for Trim<LEFT, RIGHT> {
    fn result<'a>(arguments: &Arguments<'a>) -> Result<Outcome<'a>, Failure> {
        let Some(mut text) = arguments.text(0)? else { return Ok(Outcome::Null) };
        let set = match arguments.values.len() {
            1 => Some(&b" "[..]),
            _ => arguments.text(1)?,
        };
        let Some(set) = set else { return Ok(Outcome::Null) };
        let end = memchr(0, set).unwrap_or(set.len());
        let mut set = Characters { set: &set[..end], stretch: Stretch::default() };
        if LEFT {
            while let Some(length) = set.find(|character| text.starts_with(character))? {
                text = &text[length..];
            }
        }
        if RIGHT {
            while let Some(length) = set.find(|character| text.ends_with(character))? {
                text = &text[..text.len() - length];
            }
        }
        Ok(Outcome::Text(text))
    }
}

/// A set of characters, as SQLite divides a text into them.
struct Characters<'a> {
    set: &'a [u8],
    stretch: Stretch,
}

impl Characters<'_> {
    /// The length of the first character of which `is_there` holds.
    fn find(&mut self, is_there: impl Fn(&[u8]) -> bool) -> Result<Option<usize>, Failure> {
        let mut rest = self.set;
        while let Some(first) = rest.first() {
            let more = match *first {
                0xc0.. => rest[1..].iter().take_while(|byte| continues(**byte)).count(),
                _ => 0,
            };
            let (character, after) = rest.split_at(1 + more);
            self.stretch.count(4 + more)?;
            if is_there(character) {
                return Ok(Some(character.len()));
            }
            rest = after;
        }
        Ok(None)
    }
}

struct Hex;

impl Function for Hex {
    fn result<'a>(arguments: &Arguments<'a>) -> Result<Outcome<'a>, Failure> {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let bytes = arguments.blob(0)?;
        let mut output = arguments.output(bytes.len() * 2)?;
        Stretch::default().parts(bytes, |part| {
            for byte in part {
                let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
                output.push(&digits);
            }
        })?;
        Ok(Outcome::Made(output))
    }
}

struct Upper;

impl Function for Upper {
    fn result<'a>(arguments: &Arguments<'a>) -> Result<Outcome<'a>, Failure> {
        with_bytes(arguments, |byte| byte.to_ascii_uppercase())
    }
}

struct Lower;

impl Function for Lower {
    fn result<'a>(arguments: &Arguments<'a>) -> Result<Outcome<'a>, Failure> {
        with_bytes(arguments, |byte| byte.to_ascii_lowercase())
    }
}

/// The first argument with each byte put through `change`.
fn with_bytes<'a>(
    arguments: &Arguments<'a>,
    change: impl Fn(&u8) -> u8,
) -> Result<Outcome<'a>, Failure> {
    let Some(text) = arguments.text(0)? else { return Ok(Outcome::Null) };
    let mut output = arguments.output(text.len())?;
    let mut changed = [0; 256];
    Stretch::default().parts(text, |part| {
        for piece in part.chunks(changed.len()) {
            for (to, from) in changed.iter_mut().zip(piece) {
                *to = change(from);
            }
            output.push(&changed[..piece.len()]);
        }
    })?;
    Ok(Outcome::Made(output))
}

unsafe extern "C" fn random_integer(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    let mut bytes = [0; 8];
    with_volume(|volume| volume.random(&mut bytes));
    // SAFETY: SQLite's context for the length of this call.
    unsafe { ffi::sqlite3_result_int64(context, i64::from_le_bytes(bytes)) };
}

unsafe extern "C" fn random_blob(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite's arguments for the length of this call.
    let values = unsafe { slice::from_raw_parts(arguments, count as usize) };
    // SAFETY: one argument, as registered.
    let wanted = unsafe { ffi::sqlite3_value_int64(values[0]) }.max(1);
    let limit = Arguments { context, values }.length_limit();
    if wanted > limit as i64 {
        // SAFETY: SQLite's context for the length of this call.
        unsafe { ffi::sqlite3_result_error_toobig(context) };
        return;
    }
    // SAFETY: allocated from the tenant's account, and handed over with its own free function.
    unsafe {
        let memory = ffi::sqlite3_malloc64(wanted as u64);
        if memory.is_null() {
            ffi::sqlite3_result_error_nomem(context);
            return;
        }
        let bytes = slice::from_raw_parts_mut(memory.cast::<u8>(), wanted as usize);
        with_volume(|volume| volume.random(bytes));
        ffi::sqlite3_result_blob(context, memory, wanted as c_int, Some(ffi::sqlite3_free));
    }
}

#[cfg(test)]
mod tests;
