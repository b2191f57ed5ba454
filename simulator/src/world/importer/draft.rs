//! Files that are sent in several requests, as the `turso` CLI does: a database to be sent, its start, its
//! chunks, and the end of it.
//!
//! Pieces are drawn one by one. A step whose answer is lost is asked again; chunks break off on purpose, and
//! come again from their beginning; some come twice, as if their answer had been lost. In between others look at the name, or drop it, or nothing comes any more.
//!
//! Expected, besides what IMP-1 says of every upload: the end that was answered with 200 is there, whole;
//! what has not come to its end is not; a draft is never older than its server; what was good so far is not
//! refused, and not forgotten while it goes on.

use std::ops::Range;

use serde_json::{Value, json};
use storage::io::Clock;

use super::file::Contents;
use super::{Importer, Kind, ORGANISATION, Order, Sim, is_excused};
use crate::client::{Response, request};
use crate::draws::Stream;
use crate::world::model::Violation;
use crate::world::options::{ADMIN, LISTEN, Options};

/// Chunks after which the rest comes in one.
const CHUNKS_MAX: u64 = 6;

/// Steps after which nothing more comes: some are asked again and again.
const STEPS_MAX: u32 = 40;

/// Time for which a draft is kept at least when nothing comes: the server says 120 s.
const KEPT_NS: u64 = 100_000_000_000;

/// What is asked of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Create,
    Start,
    Chunk,
    /// The chunk before, which is there already.
    ChunkAgain,
    Finalize,
}

/// A database that is being sent.
#[derive(Debug)]
pub struct Draft {
    slot: usize,
    kind: Kind,
    contents: Contents,
    bytes: Vec<u8>,
    step: Step,
    steps: u32,
    /// What the server calls it.
    id: String,
    /// The chunk that is next, and where it is.
    chunk: u64,
    at: usize,
    piece_bytes: usize,
    /// Where the chunk before was.
    before: Range<usize>,
    /// Which life of the server has last answered for it, and when.
    known: Option<(u64, u64)>,
}

impl Importer {
    /// A file that is to be sent in pieces.
    pub(super) fn begin_draft(
        &mut self,
        slot: usize,
        kind: Kind,
        contents: Contents,
        bytes: Vec<u8>,
    ) -> Order {
        let (step, id) = (Step::Create, String::new());
        let known = None;
        let (steps, chunk, at, piece_bytes) = (0, 0, 0, 0);
        self.slots[slot].unsettled = true;
        self.draft = Some(Draft {
            slot,
            kind,
            contents,
            bytes,
            step,
            steps,
            id,
            chunk,
            at,
            piece_bytes,
            before: 0..0,
            known,
        });
        Order::Draft(step)
    }

    /// What comes next of the draft in hand; something else now and then.
    pub(super) fn go_on(&mut self, sim: &mut Sim) -> Option<Order> {
        let draft = self.draft.as_mut()?;
        draft.steps += 1;
        match sim.draws_mut().below(Stream::Imports, 12, 24) {
            // Nothing comes any more.
            0 => self.draft = None,
            1 => {
                let slot = draft.slot;
                self.draft = None;
                return Some(Order::Drop { slot });
            }
            2 | 3 => return Some(Order::Show { slot: draft.slot }),
            4..7 if draft.chunk > 0 => return Some(Order::Draft(Step::ChunkAgain)),
            _ if draft.steps > STEPS_MAX => self.draft = None,
            _ => {
                if draft.step == Step::Chunk && draft.piece_bytes == 0 {
                    let left = draft.bytes.len() - draft.at;
                    draft.piece_bytes = match left {
                        0 => 0,
                        _ if draft.chunk >= CHUNKS_MAX => left,
                        _ => 1 + sim.draws_mut().index(Stream::Imports, 13, left),
                    };
                    if left == 0 {
                        draft.step = Step::Finalize;
                    }
                }
                return Some(Order::Draft(draft.step));
            }
        }
        None
    }

    /// The bytes of a step, and where it goes.
    pub(super) fn step_request(&self, step: Step) -> (Vec<u8>, &'static str) {
        let draft = self.draft.as_ref().expect("it is asked for");
        let name = self.name(draft.slot);
        let put = |rest: String, body: &[u8]| {
            let path = format!("/db/{name}/v2/upload/{rest}");
            let length = body.len().to_string();
            let fields = [("content-length", length.as_str())];
            let fields = if body.is_empty() { &fields[..] } else { &[] };
            (request("PUT", &path, "sim", fields, body), LISTEN)
        };
        match step {
            Step::Create => {
                let seed = json!({ "type": "database_upload" });
                let body = json!({ "name": name, "location": "", "seed": seed }).to_string();
                let path = format!("/v1/organizations/{ORGANISATION}/databases");
                (request("POST", &path, "sim", &[], body.as_bytes()), ADMIN)
            }
            Step::Start => {
                let body = json!({ "db_size_bytes": draft.bytes.len() }).to_string();
                put("start".to_owned(), body.as_bytes())
            }
            Step::Chunk => {
                let piece = &draft.bytes[draft.at..draft.at + draft.piece_bytes];
                put(format!("{}/chunk/{}", draft.id, draft.chunk), piece)
            }
            Step::ChunkAgain => {
                let piece = &draft.bytes[draft.before.clone()];
                put(format!("{}/chunk/{}", draft.id, draft.chunk - 1), piece)
            }
            Step::Finalize => put(format!("{}/finalize", draft.id), b""),
        }
    }

    /// There will be no answer: what was asked is asked again, but for the end.
    pub(super) fn lose_step(&mut self, step: Step) {
        let Some(draft) = &mut self.draft else { return };
        match step {
            Step::Create => draft.step = Step::Start,
            Step::Start | Step::Chunk | Step::ChunkAgain => {}
            Step::Finalize => {
                let Draft { slot, kind, contents, .. } =
                    self.draft.take().expect("it is asked for");
                self.lose_upload(slot, kind, contents);
            }
        }
    }

    /// The answer to a step.
    pub(super) fn hear_step(
        &mut self,
        sim: &mut Sim,
        options: &Options,
        step: Step,
        (life, response): (u64, &Response),
    ) -> Result<(), Violation> {
        let value: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        let code = value["code"].as_str().unwrap_or_default();
        let Some(draft) = &mut self.draft else { return Ok(()) };
        let state = &mut self.slots[draft.slot];
        let (now, kind) = (sim.now().0, draft.kind);
        let is_good = matches!(kind, Kind::Sql | Kind::File);
        let wrong = |what: &str| {
            let text = String::from_utf8_lossy(&response.body);
            let Draft { slot, contents, known, chunk, at, .. } = &draft;
            let text = format!(
                "{step:?} of a draft ({kind:?} {contents:?} slot {slot} chunk {chunk} at {at} known {known:?}, \
                 answered in {life}): {what}: {} {text:.300}",
                response.status
            );
            Err(Violation::new("IMP-1", text))
        };
        match response.status {
            200 => {
                let outlived = draft.known.is_some_and(|(known, _)| known != life);
                if outlived && step != Step::Create {
                    return wrong("it has outlived its server");
                }
                match step {
                    Step::Create if !state.is_empty() => return wrong("the name is taken"),
                    Step::Create => draft.step = Step::Start,
                    Step::Start => {
                        draft.id = value["upload_id"].as_str().unwrap_or_default().to_owned();
                        draft.step = Step::Chunk;
                    }
                    // What was there is there as before: the sums will tell.
                    Step::ChunkAgain => {}
                    Step::Chunk => {
                        draft.before = draft.at..draft.at + draft.piece_bytes;
                        draft.at += draft.piece_bytes;
                        (draft.chunk, draft.piece_bytes) = (draft.chunk + 1, 0);
                    }
                    Step::Finalize => {
                        match kind {
                            Kind::Flipped => state.unjudged = true,
                            _ if !is_good => return wrong("it cannot be good"),
                            _ => {
                                state.there = Some(draft.contents);
                            }
                        }
                        self.draft = None;
                        return Ok(());
                    }
                }
                draft.known = Some((life, now));
                return Ok(());
            }
            409 if code == "UPLOAD_BUSY" => return Ok(()),
            // Its creation was not answered: the name is that of one that nothing came for any more.
            409 if code == "UPLOAD_BEGUN" && draft.known.is_none() => {}
            404 if code == "ORGANISATION_NOT_FOUND" => {
                self.draft = None;
                self.ask(sim, Order::Organisation);
                return Ok(());
            }
            409 if code == "DATABASE_EXISTS" && step == Step::Create => {
                if state.is_empty() && state.lost.is_empty() && !state.unsettled {
                    return wrong("the name is free");
                }
            }
            404 => {
                let kept =
                    draft.known.is_some_and(|(known, at)| known == life && now - at < KEPT_NS);
                let troubled = options.excuses(500) || options.has_small_log();
                let sleeps = options.faults.clock_jumps > 0;
                if kept && is_good && !troubled && !sleeps {
                    return wrong("it is forgotten");
                }
            }
            status if is_excused(options, status, code) => {}
            413 | 415 | 422 | 400 if !is_good => {}
            _ if is_good => return wrong("it is good"),
            _ => return wrong("it is refused in no known way"),
        }
        // A step that was refused for what is going on may be asked again; not for ever.
        if !(response.status == 429 || response.status == 503) {
            self.draft = None;
        }
        Ok(())
    }
}
