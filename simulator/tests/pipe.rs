//! The binary, when whoever reads its output has seen enough.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

#[test]
fn a_closed_pipe_ends_it_without_a_word() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_simulator"))
        .args(["run", "1", "--profile", "calm", "--trace", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("it can be read");
    assert!(line.starts_with("profile=calm"), "{line}");
    drop(lines);
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
    let status = child.wait().expect("it ends");
    assert_eq!((status.code(), said.as_str()), (Some(128 + 13), ""));
}
