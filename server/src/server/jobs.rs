//! What fleet jobs ask of the engine, and what they are told.
//!
//! A job asks as the machine; whoever made it was judged when it was made. On a database its run may
//! write there and nowhere else: the database is meant by its id.

use tenant::access::{Access, Credential, Role, Scope};
use tenant::budget::Priority;
use tenant::jobs::JobReply;
use tenant::{ControlCall, ControlReply, Event};

use super::Server;
use super::admin::FIRST_KEY;
use crate::auth::rights;
use crate::control;
use crate::jobs::{self, Action, Run};
use crate::work::{Work, WorkReply};

impl Server {
    /// Let jobs decide what is next, and ask the engine for it.
    pub(super) fn turn_jobs(&mut self) {
        self.jobs.turn(self.now);
        self.act_for_jobs();
    }

    /// What runs for jobs ends, and nothing more begins.
    pub(super) fn stop_jobs(&mut self) {
        self.jobs.stop();
        self.act_for_jobs();
    }

    fn act_for_jobs(&mut self) {
        while let Some(action) = self.jobs.next_action() {
            match action {
                Action::Ask(request, call) => {
                    let call = ControlCall::Job(call);
                    let needs = rights::of_call(&call);
                    let credential = Credential::Access(Access::MACHINE);
                    self.engine.control(request, credential, needs, call);
                }
                Action::Run(request, run) => {
                    let Run { name, database, work } = *run;
                    let access = Access {
                        role: Role::Write,
                        scope: Scope::Database(database),
                        priority: Some(Priority::Background),
                        ..Access::MACHINE
                    };
                    let credential = Credential::Access(access);
                    self.engine.submit(request, &name, credential, Work::Migration(work));
                }
                Action::Cancel(request) => self.engine.cancel(request),
            }
        }
    }

    /// An event that is about a job goes there; any other one is given back.
    pub(super) fn hand_to_jobs(&mut self, event: Event<WorkReply>) -> Option<Event<WorkReply>> {
        let now = self.now;
        let own = |request| request != FIRST_KEY && jobs::is_own(request);
        match event {
            Event::Finished(request, WorkReply::Migration(end)) => {
                self.jobs.on_finished(request, end, now);
            }
            Event::Refused(request, refusal) if own(request) => {
                self.jobs.on_refused(request, &refusal, now);
            }
            Event::Control(request, ControlReply::Job(reply)) if own(request) => {
                self.jobs.on_reply(request, &reply, now);
            }
            // Whoever has asked may be gone: a job is not.
            Event::Control(request, ControlReply::Job(JobReply::Job(row))) => {
                self.jobs.on_changed(&row);
                return Some(Event::Control(request, ControlReply::Job(JobReply::Job(row))));
            }
            event => return Some(event),
        }
        None
    }

    /// The answer to somebody's call about jobs.
    pub(super) fn answer_about_jobs(&self, call: &ControlCall, reply: &JobReply) -> Vec<u8> {
        let ControlCall::Job(call) = call else { return b"{}".to_vec() };
        let answer = control::jobs::answer(call, reply, |id| self.jobs.live(id, self.now));
        answer.to_string().into_bytes()
    }
}
