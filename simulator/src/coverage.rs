//! What a batch of seeds must have reached: every kind of fault, and the places in the server that
//! are marked with `sometimes!`. A fault that never strikes, or a path that no fault leads to, would
//! let all other checks pass for nothing.
//!
//! The list of marks is this file's; a test compares it with the sources, both ways. `seeds` says
//! how many seeds of mixed profiles reach a mark for sure: some sixteen times the mean distance that was
//! measured over 3,000 of them, so that one batch in ten million misses it. A smaller batch is not held to it.

use std::collections::BTreeMap;

use crate::faults::FaultKind;

/// A place in the server, marked with `sometimes!`.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Its text in the source.
    pub text: &'static str,
    /// A batch of so many seeds must reach it.
    pub seeds: u64,
}

const fn mark(text: &'static str, seeds: u64) -> Mark {
    Mark { text, seeds }
}

/// All marks, by what they are about.
pub const MARKS: &[Mark] = &[
    // ---- volumes ----
    mark("a first start ends before the catalogue is made", 10_000),
    mark("a page is read from the log", 100),
    mark("a database without a file is read", 100),
    mark("a spilled transaction is rolled back", 100),
    mark("SQLite's word for a failed checkpoint is taken back", 1000),
    // ---- the log ----
    mark("the log has no room for a transaction", 100),
    mark("the log passes its high mark", 100),
    mark("a batch is full", 100),
    mark("a batch cannot be written", 300),
    mark("a segment is used again", 100),
    mark("a batch of several tenants", 100),
    mark("a batch with several transactions of one tenant", 100),
    mark("a transaction of several batches", 100),
    mark("an empty batch, to free a segment", 100),
    mark("recovery: a bad batch without a copy, and a successor", 3000),
    mark("recovery: a torn tail", 1000),
    mark("recovery: a bad batch and a bad copy at the end", 30_000),
    mark("recovery: no batch, and a successor", 30_000),
    mark("recovery: the end of the log", 100),
    mark("recovery: no batch and a bad copy at the end", 30_000),
    mark("recovery: a header copy is repaired", 300),
    mark("recovery: a superblock is repaired", 1000),
    mark("recovery: of an empty log", 100),
    mark("recovery: of one segment", 100),
    mark("recovery: of several segments", 300),
    mark("recovery: a tenant's pages in the log are damaged", 3000),
    mark("recovery: a good batch", 100),
    mark("recovery: no batch, but its copy", 10_000),
    mark("recovery: a bad batch and its copy", 1000),
    mark("recovery: a batch that nobody can read is superseded", 30_000),
    // ---- files ----
    mark("a sync of a tenant's file fails", 300),
    mark("reading back finds a page that was not written", 1000),
    mark("a tenant's first checkpoint makes its file", 100),
    mark("a checkpoint brings recovered pages into the file", 100),
    mark("a checkpoint cuts the file", 30_000),
    mark("a WAL spills to a file", 100),
    mark("a temporary object spills to a file", 100),
    mark("a read of a tenant's file fails", 300),
    mark("a tenant's file is missing", 3000),
    mark("a tenant's file was cut", 1000),
    mark("a tenant's file is an old copy", 10_000),
    mark("page 1 of a file is torn, and the log has it", 3000),
    mark("page 1 of a tenant's file is damaged", 3000),
    mark("a page that is read from the log is damaged", 10000),
    mark("a page is good at the second reading", 1000),
    mark("a page of a tenant's file is damaged", 1000),
    mark("a spilled page is brought for its commit", 300),
    mark("a reader that turns writer waits for the lock", 300),
    // ---- tenants ----
    mark("a statement exceeds its tenant's memory", 300),
    mark("a fence or a tombstone is written at a second try", 3000),
    mark("a short transfer is continued", 100),
    mark("a log file is still locked", 100),
    mark("a tenant has too many requests", 300),
    mark("a request comes while its tenant closes", 1000),
    mark("a request waits for a fiber", 30_000),
    mark("a checkpoint because the server stops", 100),
    mark("a checkpoint of what was recovered", 100),
    mark("a checkpoint because the log fills", 100),
    mark("a checkpoint because of a large WAL", 100),
    mark("a checkpoint because the tenant closes", 100),
    mark("an idle tenant is closed for its memory", 300),
    mark("a busy tenant loses its cached pages", 10000),
    mark("a stored text exceeds its tenant's memory", 30_000),
    mark("a response exceeds its tenant's memory", 10000),
    mark("connections wait for a fiber to be closed", 30_000),
    mark("an idle connection gives its buffer back", 30_000),
    mark("a tenant is fenced", 1000),
    mark("a tenant is dropped while it is open", 100),
    mark("a dropped tenant's file cannot be removed", 1000),
    mark("a reply waits for a commit that is being sealed", 300),
    mark("a reply waits in the gate", 100),
    mark("a commit that cannot be logged is not told", 30_000),
    mark("the disk refuses the log room", 300),
    mark("a start removes what was dropped before", 3000),
    mark("a start fences a tenant", 3000),
    mark("a crash interrupts a start", 100),
    mark("a crash interrupts a checkpoint", 100),
    mark("a crash interrupts a stop", 300),
    mark("a crash interrupts a commit that is being sealed", 1000),
    mark("a stream goes to the request that waits for it", 30_000),
    mark("a stream expires", 100),
    mark("a stream ends inside a transaction", 100),
    mark("a transaction ends only with its connection", 30_000),
    mark("an idle transaction loses the writer lock", 100),
    mark("a checkpoint that failed is written again", 300),
    mark("a checkpoint fails twice", 300),
    mark("a request takes too long", 300),
    mark("a job runs on after its client went", 100),
    mark("a statement waits for the writer lock", 100),
    mark("the writer lock is handed to one who waits", 100),
    mark("a statement whose snapshot was overtaken is promised the writer lock", 1000),
    mark("a wait for log space ends well", 300),
    mark("a wait for log space ends in vain", 300),
    mark("a tenant is left to the log", 10_000),
    mark("a tenant has too many streams", 300),
    mark("a stream does not fit into its tenant's memory", 10000),
    mark("a request waits for a connection in use", 100),
    // ---- connections and streams ----
    mark("a baton is not even one of ours in shape", 30_000),
    mark("a baton of another tenant or process is refused", 100),
    mark("a baton comes after its stream expired", 100),
    mark("a baton is used twice", 100),
    mark("a request is refused because buffers are used up", 30_000),
    mark("a request's head comes in pieces", 100),
    mark("a request comes before the answer to the one before", 100),
    mark("a part of an answer comes too late for its client", 30_000),
    mark("an answer breaks off after its status", 10000),
    mark("a violation of the protocol is refused", 100),
    mark("a connection ends while its request runs", 100),
    mark("an idle connection is closed", 100),
    mark("a request that comes too slowly is given up", 100),
    mark("a client reads a streamed answer too slowly", 100),
    mark("a connection whose request was refused for load is not read for a while", 100),
    mark("a client reads its answer too slowly", 300),
    mark("a refused client does not hang up", 1000),
    mark("accepting pauses after an error", 100),
    mark("a client ends its side while its request runs", 100),
    mark("a connection is reset", 100),
    mark("an answer leaves in pieces", 100),
    // ---- budgets ----
    mark("a commit would cost more than its request may", 30_000),
    mark("a commit waits for its turn at the disk", 100),
    mark("a compiled statement does not compile any more", 30_000),
    mark("a connection forgets what a new one would not know", 100),
    mark("a stream goes on after its connection had no memory", BY_TESTS),
    mark("a database is as large as it may be", 300),
    mark("a request is larger than its tenant's budget", 30_000),
    mark("a place is taken again with what was left in its buckets", 300),
    mark("a request is refused before its body has arrived", 30_000),
    mark("a tenant has too many connections", 30_000),
    mark("a request is refused because the machine's memory is used up", 10000),
    mark("a request that has ended does not wait for its budget of processor time", 10000),
    mark("a statement does not begin because of its request's cost", 30_000),
    mark("a statement is stopped because of its request's cost", 30_000),
    mark("cached pages go because memory is wanted", 100),
    // ---- uploads ----
    mark("a database is made from an upload", 100),
    mark("an import is given up", 100),
    mark("an upload is refused for its header", 100),
    mark("a statement of a dump fails", 300),
    mark("a dump is dropped when a database was made of it", 300),
    mark("an upload is refused before its end", 300),
    mark("the body of an upload breaks off", 1000),
    mark("a stranger's file goes to the disk", 300),
    mark("an import goes on in another transaction", 1000),
    mark("a long job waits for a checkpoint", 3000),
    mark("a damaged upload is found out", 3000),
    mark("a check finds an upload damaged", 1000),
    mark("an upload's client has gone before its body was asked for", 30_000),
    mark("an upload is larger than it may be", 30_000),
    mark("a chunk that is there already comes again", 300),
    mark("a chunk goes on where it broke off", 1000),
    mark("a database is made of chunks", 300),
    mark("a draft is given up because nothing comes", 1000),
    mark("an upload takes too much work to be checked", BY_TESTS),
    mark("an upload is given up because buffers are used up", BY_TESTS),
    mark("an upload has a table of an unknown module", BY_TESTS),
    mark("an upload has a row that says to be larger than all of it", BY_TESTS),
    mark("an uploaded R-Tree has lost an entry", BY_TESTS),
    mark("an index over another table is made anew", BY_TESTS),
    mark("a dump writes the table of the schema", BY_TESTS),
    mark("an index of a large upload is made before its rows", BY_TESTS),
    mark("an organisation has as many imports as it may", 30_000),
    mark("there are as many imports as may be", BY_TESTS),
    // ---- copies ----
    mark("a small copy goes into the log", 100),
    mark("a copy goes into a file", 100),
    mark("a small copy goes into a file because the log has no room", 30_000),
    mark("a copy is opened before its pages are durable", 30_000),
    mark("a copy in the log is dropped before it was opened", 1000),
    mark("a copy in the log is opened for its checkpoint", 1000),
    mark("a copy becomes more urgent", 30_000),
    mark("a database is to be a copy of its group's template", 100),
    mark("the template of a group is no longer there", 1000),
    mark("a database in memory is no copy of its group's template", 300),
    mark("a copy that a crash has taken is made again", 1000),
    mark("a copy is given up because its original is written to too fast", NO_COPY),
    mark("writers wait for a copy that falls behind", 30_000),
    mark("writers wait no longer for a copy that does not go on", NO_COPY),
    mark("a copy would be larger than it may be", NO_COPY),
    mark("a database is dropped at the very end of its building", NO_COPY),
    mark("a database that was being built is given up", 1000),
    mark("a fork opens its original", 300),
    mark("a snapshot is given up because logs fill", 30_000),
    mark("a snapshot is older than it should be", NO_COPY),
    mark("a start removes what was being built", 1000),
    mark("an export breaks off after its status", NO_COPY),
    mark("the original of a fork is gone before it begins", 30_000),
    // ---- databases that end ----
    mark("a call about many databases goes on when its client has gone", BY_TESTS),
    mark("a call about many databases is broken off", BY_TESTS),
    mark("a call about many databases is made again with its key", 1000),
    mark("a commit in memory would cost more than it may", BY_TESTS),
    mark("a commit would cost more than its database may spend", BY_TESTS),
    mark("a database ends and is dropped", 1000),
    mark("a database ends and is frozen", 1000),
    mark("a database in memory gives its connections back", 1000),
    mark("a database in memory is made", 1000),
    mark("a database in memory is not made because its name is asked for", BY_TESTS),
    mark("a database that is in use has its end moved on", 3000),
    mark("a drop is answered although its file stays for now", BY_TESTS),
    mark("a request that waits is told that its database has ended", BY_TESTS),
    mark("a start goes on with databases of a group that says other times", BY_TESTS),
    mark("a statement does not begin because its database's allowance is used up", BY_TESTS),
    mark("a statement is stopped because its database may not spend more", BY_TESTS),
    mark("a statement is told that its database has ended", BY_TESTS),
    mark("a statement that writes is refused because its database is frozen", BY_TESTS),
    mark("somebody who had a stream is told that the database has ended", BY_TESTS),
    // ---- fleet jobs ----
    mark("a job fails on a database", 100),
    mark("a job pauses or ends because of failures", 300),
    mark("a job pauses after its first databases", 300),
    mark("a job leaves a database alone", 300),
    mark("a job finds a database dropped", 30_000),
    mark("a job puts a busy database aside", 30_000),
    mark("a job gives a busy database up", 30_000),
    mark("a job goes on before it has come to rest", 30_000),
    mark("a job goes on after a start", 1000),
    mark("a job is interrupted because the server stops", 30_000),
    mark("a job finds its mark in a database", 1000),
    mark("a job finds after a crash that it was done", 1000),
    mark("the catalogue has no room for a job's results", 30_000),
    // ---- keys ----
    mark("a database is made for somebody who came after one who may not", NO_KEYS),
    mark("a key has spent its budget", NO_KEYS),
    mark("a key that is not good is refused", 1000),
    mark("a proof is forgotten for another", NO_KEYS),
    mark("a request ends because its key is revoked", NO_KEYS),
    mark("a request for a cold database of another is refused", NO_KEYS),
    mark("a request without a good token or key is refused", 300),
    mark("a statement does not begin because its request is to end", NO_KEYS),
    mark("a statement is refused because somebody has blocked it", NO_KEYS),
    mark("a statement that writes is refused to who may only read", NO_KEYS),
    mark("a stream ends because its key is revoked", 1000),
    mark("a token that a database's own key has signed is believed", NO_KEYS),
    // ---- hostile input ----
    mark("a connection is closed because its peer has too many without a key", BY_TESTS),
    mark("a statement is refused because it is nested too deeply", BY_TESTS),
    mark("a stranger is not heard because of failures from the same peer", BY_TESTS),
    mark("a stop leaves a call of the catalogue to the next start", BY_TESTS),
    mark("a transaction ends because a module had no memory in it", BY_TESTS),
];

/// What no world meets, and tests on the real binary do.
const BY_TESTS: u64 = u64::MAX;

/// What only larger databases meet than those of a world.
const NO_COPY: u64 = u64::MAX;

/// Worlds have keys without limits of their own, and one operator.
const NO_KEYS: u64 = u64::MAX;

/// Kinds of faults that not every batch of [`FAULT_SEEDS`] meets, and how many seeds do.
const RARE_FAULTS: &[(FaultKind, u64)] = &[
    (FaultKind::DiskFull, 1_000),
    (FaultKind::MisdirectedWrite, 1_000),
    (FaultKind::LateLanding, 1_000),
    (FaultKind::MisdirectedRead, 1_000),
    (FaultKind::OpenError, 1_000),
    (FaultKind::ReadOnlyDisk, 1_000),
    (FaultKind::RotFile, 1_000),
    (FaultKind::SyncLate, 1_000),
    (FaultKind::SyncReverted, 1_000),
    (FaultKind::WriteError, 1_000),
    (FaultKind::LostWrite, 1_000),
    (FaultKind::PageEvicted, 3_000),
];

/// A batch of so many seeds must meet every kind of fault that is not rare.
const FAULT_SEEDS: u64 = 300;

/// What a batch of `seeds` has missed, or reached without being expected to: a sentence each.
#[must_use]
pub fn missing(
    seeds: u64,
    marks: &BTreeMap<String, u64>,
    struck: impl Fn(FaultKind) -> u64,
) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in FaultKind::ALL {
        let rare = RARE_FAULTS.iter().find(|(rare, _)| rare == kind);
        let expected = rare.map_or(FAULT_SEEDS, |(_, seeds)| *seeds);
        if seeds >= expected && struck(*kind) == 0 {
            lines.push(format!("no seed met the fault {kind}"));
        }
    }
    for mark in MARKS {
        if seeds >= mark.seeds && !marks.contains_key(mark.text) {
            lines.push(format!("no seed reached: {}", mark.text));
        }
    }
    for text in marks.keys() {
        if !MARKS.iter().any(|mark| mark.text == text) {
            lines.push(format!("a mark that simulator/src/coverage.rs does not know: {text}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The texts of all `sometimes!` in the sources below `folder`.
    fn marks_below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                marks_below(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("storage/src/sometimes.rs")
            {
                let source = std::fs::read_to_string(&path).expect("a source");
                let uses = source.split("sometimes!(").skip(1);
                let texts = uses.filter_map(|rest| rest.trim_start().strip_prefix('"'));
                found.extend(texts.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    #[test]
    fn the_list_is_the_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut found = BTreeSet::new();
        for part in ["storage/src", "tenant/src", "server/src"] {
            marks_below(&root.join(part), &mut found);
        }
        let listed: BTreeSet<String> = MARKS.iter().map(|mark| mark.text.to_owned()).collect();
        let unlisted: Vec<&String> = found.difference(&listed).collect();
        assert!(unlisted.is_empty(), "put these into MARKS: {unlisted:?}");
        let gone: Vec<&String> = listed.difference(&found).collect();
        assert!(gone.is_empty(), "no source has these: {gone:?}");
        assert_eq!(listed.len(), MARKS.len(), "a mark is listed once");
    }

    #[test]
    fn what_is_missing_and_what_is_unknown_is_said() {
        let mut marks: BTreeMap<String, u64> =
            MARKS.iter().map(|mark| (mark.text.to_owned(), 1)).collect();
        assert!(missing(u64::MAX, &marks, |_| 1).is_empty());
        let unmet = |kind| u64::from(kind != FaultKind::Kill);
        assert_eq!(missing(u64::MAX, &marks, unmet), ["no seed met the fault kill"]);
        assert!(missing(1, &marks, |_| 0).is_empty());
        marks.insert("nobody knows this".to_owned(), 1);
        assert_eq!(missing(1, &marks, |_| 0).len(), 1);
    }
}
