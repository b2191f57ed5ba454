//! Fibers: small stacks on which SQLite's blocking C code runs and waits without blocking the loop.
//!
//! A fiber runs one job of one tenant. Where SQLite must wait (a page, a lock, its turn of the
//! CPU), the VFS or the progress handler *suspends* the fiber with a [`Wait`]; the loop does what
//! is asked and resumes it with an [`Answer`]. The job itself may ask its host for things too
//! (`Y` in, `A` out), through the [`Handle`] that its body gets.
//!
//! **The loan.** Whoever resumes a fiber lends it the tenant's [`Volume`] until it suspends or
//! ends. So the VFS works on plain `&mut Volume` while C code runs, the loop owns the volume while
//! it does not, and no lock or counted reference is needed. [`with_volume`] hands it out for the
//! length of a closure, and asserts that loans do not overlap.
//!
//! A fiber must run to its end: unwinding C frames is not possible, so dropping a suspended one is
//! a bug and aborts. A doomed world resumes its fibers with failures until they end.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::ptr;

use corosensei::stack::{DefaultStack, Stack as _};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::io::{Buffer, Clock, FileId, Instant, WallTime};
use crate::ledger::{self, AccountId, Kind};
use crate::log::PageLocation;
use crate::meter::{Ceiling, Cost, Exceeded, Meter};
use crate::stretch;
use crate::volume::{ConnectionId, Volume};

/// Bytes of a fiber's stack. SQLite's deepest chain under our limits was measured at 132 KiB in
/// release and 172 KiB without optimisation; a guard page lies below.
pub const STACK_BYTES: usize = 256 * 1024;

/// What of it must be left where SQLite begins to compile a SELECT or another part of a statement: more
/// than the rest of that part takes. The deepest expression, 97 times `iif()`, took 141 KiB in release: with
/// 80 KiB it ended the process below a compound of 131 terms.
const STACK_SPARE_BYTES: usize = 160 * 1024;

/// SQLite's VM steps between two calls of the progress handler.
pub const PROGRESS_STEPS: u32 = 100;

/// VM steps that a call into the VFS counts for: it copies a page and hashes it perhaps.
const CALL_STEPS: u64 = 50;

/// The clock is read at each so many calls: a read costs as much as the shortest of them.
const CALLS_PER_LOOK: u64 = 4;

/// So many allocations of SQLite's count as a call into the VFS. Compiling a statement reaches no other
/// look and may take 30 ms (5,000 common table expressions, each compared with all others), but allocates
/// for each word of it.
const ALLOCATIONS_PER_CALL: u64 = 64;

/// What a fiber waits for, as storage code asks it.
#[derive(Debug)]
pub enum Wait {
    /// Its turn: the quantum is used up.
    Turn,
    /// The tenant's file, opened or (`create`) created with its folders made durable.
    OpenMain {
        /// Create file and folders if they are missing.
        create: bool,
        /// For read-back past the page cache.
        direct: bool,
    },
    /// An unnamed temporary file.
    OpenTemporary,
    /// Bytes of a file.
    Read {
        /// The file.
        file: FileId,
        /// Byte offset.
        offset: u64,
        /// As many bytes as its length says.
        buffer: Buffer,
    },
    /// Bytes into a file.
    Write {
        /// The file.
        file: FileId,
        /// Byte offset.
        offset: u64,
        /// All of it.
        buffer: Buffer,
    },
    /// A file made durable.
    Sync(FileId),
    /// A file's size set, in bytes.
    Truncate(FileId, u64),
    /// A recovered page, from the commit log.
    ReadLog(PageLocation),
    /// The tenant's writer lock, in order of arrival.
    Writer(ConnectionId),
    /// Space in the commit log for a transaction of so many pages.
    LogSpace {
        /// Distinct pages of the transaction.
        pages: u32,
    },
    /// The volume's sealing transaction, appended to the commit log.
    Seal,
    /// Everything this tenant has committed, durable.
    Durable,
}

/// How a wait ended.
#[derive(Debug)]
pub enum Answer {
    /// Done, granted, there.
    Ready,
    /// The answer to [`Wait::OpenMain`] and [`Wait::OpenTemporary`]: the file and its size in bytes.
    Opened(FileId, u64),
    /// The answer to reads and writes: the buffer and how many of its bytes were moved (a short
    /// count means the end of the file).
    Moved(Buffer, usize),
    /// The answer to [`Wait::Seal`] where a page was spilled: bring this frame's page, then ask again.
    Bring(u32),
    /// The deadline passed first.
    TimedOut,
    /// There is no room (log full, disk full).
    Full,
    /// It failed, or the world is ending.
    Failed(io::ErrorKind),
}

/// What the loop lends a fiber from a resume to its next suspension.
pub struct Loan<'a> {
    /// The tenant's storage.
    pub volume: &'a mut Volume,
    /// Time: monotonic for durations and deadlines, wall-clock for SQL's `now`.
    pub clock: &'a dyn Clock,
    /// VM steps until the progress handler or a call into the VFS, which counts for some steps, suspends
    /// with [`Wait::Turn`].
    pub quantum_steps: u64,
    /// When they do so at the latest.
    pub slice_ends: Instant,
    /// Make the running statement fail with `SQLITE_INTERRUPT` at the next progress callback.
    pub interrupt: bool,
}

/// Why a fiber came back.
#[derive(Debug)]
pub enum Step<Y, R> {
    /// Storage code waits.
    Waits(Wait),
    /// The job asks its host.
    Asks(Y),
    /// The job has ended.
    Ends(R),
}

/// What a fiber is resumed with: the answer to what it waited for or asked.
#[derive(Debug)]
pub enum Input<A> {
    /// To start a fiber.
    Start,
    /// To [`Step::Waits`].
    Answer(Answer),
    /// To [`Step::Asks`].
    Host(A),
}

enum Yielded<Y> {
    Waits(Wait),
    Asks(Y),
}

type Inner<Y, A, R> = Coroutine<Input<A>, Yielded<Y>, R, DefaultStack>;

/// A job on its stack.
pub struct Fiber<Y: 'static, A: 'static, R: 'static> {
    coroutine: Option<Inner<Y, A, R>>,
    yielder: *const (),
    stack_limit: usize,
    committed: bool,
    ended: bool,
    meter: Meter,
}

/// A fiber's way to its host; exists only while its body runs.
pub struct Handle<'a, Y, A> {
    yielder: &'a Yielder<Input<A>, Yielded<Y>>,
}

impl<Y, A> Handle<'_, Y, A> {
    /// Suspend, and come back with the host's answer.
    ///
    /// # Panics
    /// If the host answers something else than what was asked: a bug of the host.
    pub fn ask(&self, question: Y) -> A {
        let context = context();
        assert!(!context.borrowed.get(), "suspended while the volume was borrowed");
        match self.yielder.suspend(Yielded::Asks(question)) {
            Input::Host(answer) => answer,
            Input::Start | Input::Answer(_) => panic!("a job's question got storage's answer"),
        }
    }
}

/// What the running fiber's C callbacks reach: lives in the frame of `resume`.
struct Context {
    yielder: Cell<*const ()>,
    suspend: unsafe fn(*const (), Wait) -> Answer,
    volume: *mut Volume,
    borrowed: Cell<bool>,
    account: AccountId,
    clock: *const dyn Clock,
    steps: Cell<u64>,
    /// Calls into the VFS.
    calls: Cell<u64>,
    allocations: Cell<u64>,
    quantum_steps: u64,
    slice_ends: Instant,
    interrupt: bool,
    /// The lowest address of the fiber's stack.
    stack_limit: usize,
    /// The running statement's commit is in the log.
    committed: Cell<bool>,
    /// The fiber's own: it goes on from resume to resume.
    meter: *const Meter,
}

impl Context {
    fn meter(&self) -> &Meter {
        // SAFETY: `resume` holds the fiber, and so its meter, for as long as this context is current.
        unsafe { &*self.meter }
    }
}

impl Context {
    /// The quantum or the slice is used up.
    fn is_over(&self) -> bool {
        stretch::look();
        // SAFETY: the loan lives as long as the fiber runs, and the caller runs on it.
        self.has_used_quantum() || unsafe { &*self.clock }.now() >= self.slice_ends
    }

    fn has_used_quantum(&self) -> bool {
        self.steps.get() + self.calls.get() * CALL_STEPS >= self.quantum_steps
    }
}

thread_local! {
    static CURRENT: Cell<*const Context> = const { Cell::new(ptr::null()) };
}

/// Whether the caller is on a fiber.
pub(crate) fn is_running() -> bool {
    !CURRENT.get().is_null()
}

fn context_opt<'a>() -> Option<&'a Context> {
    let current = CURRENT.get();
    // SAFETY: not null only while `resume` is on this thread's stack below us, whose frame owns it;
    // the reference is used up before the fiber can suspend (callers copy out or use `Cell`s).
    unsafe { current.as_ref() }
}

fn context<'a>() -> &'a Context {
    context_opt().expect("storage code runs on a fiber")
}

/// # Safety
/// `yielder` is the running fiber's, of these very types.
unsafe fn suspend_as<Y, A>(yielder: *const (), wait: Wait) -> Answer {
    // SAFETY: the caller's promise; the yielder lives on the fiber's own stack, below this frame.
    let yielder = unsafe { &*yielder.cast::<Yielder<Input<A>, Yielded<Y>>>() };
    match yielder.suspend(Yielded::Waits(wait)) {
        Input::Answer(answer) => answer,
        Input::Start | Input::Host(_) => panic!("storage's wait got a host's answer"),
    }
}

/// Suspend the running fiber until `wait` is answered.
///
/// # Panics
/// If no fiber runs, or the volume is borrowed: both are bugs.
pub fn suspend(wait: Wait) -> Answer {
    let (yielder, suspend) = {
        let context = context();
        assert!(!context.borrowed.get(), "suspended while the volume was borrowed");
        (context.yielder.get(), context.suspend)
    };
    // SAFETY: `resume` stored the yielder and the function of the running fiber's types together.
    unsafe { suspend(yielder, wait) }
}

/// Whether the caller runs on a fiber.
#[must_use]
pub fn running() -> bool {
    context_opt().is_some()
}

/// Borrow the volume that the running fiber was lent.
///
/// # Panics
/// If no fiber runs or the volume is borrowed already: both are bugs.
pub fn with_volume<R>(body: impl FnOnce(&mut Volume) -> R) -> R {
    let context = context();
    assert!(!context.borrowed.replace(true), "the volume is borrowed twice");
    // SAFETY: `resume` holds the exclusive borrow that this pointer was made from until the fiber
    // suspends, `borrowed` keeps closures from overlapping, and `suspend` refuses inside one.
    let result = body(unsafe { &mut *context.volume });
    context.borrowed.set(false);
    result
}

/// The account that pays now: the running fiber's tenant, else the system.
#[must_use]
pub fn account() -> AccountId {
    context_opt().map_or(AccountId::SYSTEM, |context| context.account)
}

/// Monotonic time.
///
/// # Panics
/// If no fiber runs.
#[must_use]
pub fn now() -> Instant {
    // SAFETY: the loan lives as long as the fiber runs, and the caller runs on it.
    unsafe { &*context().clock }.now()
}

/// Wall-clock time, if a fiber runs.
#[must_use]
pub fn wall() -> Option<WallTime> {
    // SAFETY: as in `now`.
    context_opt().map(|context| unsafe { &*context.clock }.wall())
}

/// The running statement has committed at this cost: it is not to be interrupted any more.
pub(crate) fn on_commit(cost: Cost) {
    if let Some(context) = context_opt() {
        context.committed.set(true);
        context.meter().on_commit(cost);
    }
}

/// A statement begins: what was committed before is no reason to let it go on.
pub(crate) fn on_statement() {
    if let Some(context) = context_opt() {
        context.committed.set(false);
    }
}

/// A statement of a client begins to run, in a request whose earlier statements cost `before`. One that
/// is `bounded` was counted by its database's allowance ([`crate::allowance`]), which may stop it.
///
/// # Panics
/// If no fiber runs, or the run before was not ended.
pub fn start_run(before: Cost, ceiling: Option<Ceiling>, bounded: bool) {
    context().meter().start_run(before, ceiling, bounded);
}

/// The run is over: what it cost. `counted_steps` is what the statements' own counters say.
///
/// # Panics
/// If no fiber runs, or no run was started.
pub fn end_run(counted_steps: u64) -> Cost {
    let meter = context().meter();
    let cost = meter.end_run(counted_steps);
    with_volume(|volume| meter.settle(&mut volume.allowance, &cost));
    cost
}

/// The running statement has to stop, because with `more` it costs more than its database may still
/// spend.
pub(crate) fn overspends(more: Cost) -> bool {
    let Some(context) = context_opt() else { return false };
    // Inside of a closure over the volume nothing is looked at: the next time comes soon.
    !context.borrowed.get()
        && with_volume(|volume| context.meter().overspends(&mut volume.allowance, more))
}

/// The present run, or the last one, was stopped by its database's allowance.
#[must_use]
pub fn is_overspent() -> bool {
    context_opt().is_some_and(|context| context.meter().is_overspent())
}

/// What the present run has read and stepped so far came to nothing: it was compiling, after all.
///
/// # Panics
/// If no fiber runs.
pub fn void_run() {
    context().meter().void_run();
}

/// The limit of its request's cost at which the present run, or the last one, was stopped.
#[must_use]
pub fn exceeded() -> Option<Exceeded> {
    context_opt().and_then(|context| context.meter().exceeded())
}

/// Bytes of a row were handed out.
pub fn count_result_bytes(bytes: u64) {
    if let Some(context) = context_opt() {
        context.meter().count_result_bytes(bytes);
    }
}

/// The page cache gives SQLite a page that it asked for.
#[inline]
pub(crate) fn count_page_fetch() {
    if let Some(context) = context_opt() {
        context.meter().count_page();
    }
}

/// Tell the running fiber's meter, if there is one.
pub(crate) fn with_meter<R>(tell: impl FnOnce(&Meter) -> R) -> Option<R> {
    context_opt().map(|context| tell(context.meter()))
}

/// The progress handler's part: count steps; `true` interrupts the statement.
pub(crate) fn on_progress() -> bool {
    let Some(context) = context_opt() else {
        return false;
    };
    let steps = context.steps.get() + u64::from(PROGRESS_STEPS);
    context.steps.set(steps);
    let beyond = context.meter().on_progress(u64::from(PROGRESS_STEPS));
    let beyond = overspends(Cost::default()) || beyond;
    // SQLite asks again between a statement's commit and its end, once for each hundred steps that have
    // passed without a question, and would say of what is committed that it was interrupted.
    if context.committed.get() {
        return false;
    }
    if context.interrupt || beyond {
        return true;
    }
    if context.is_over() && !context.borrowed.get() {
        let _ = suspend(Wait::Turn);
        return self::context().interrupt;
    }
    false
}

/// A call into the VFS: suspend if the slice is used up, between two steps that may be long ones.
///
/// A call is short, so most only count: the clock is read at each [`CALLS_PER_LOOK`]th.
pub(crate) fn on_call() {
    let Some(context) = context_opt() else { return };
    let calls = context.calls.get() + 1;
    context.calls.set(calls);
    let over = match calls.is_multiple_of(CALLS_PER_LOOK) {
        true => context.is_over(),
        false => context.has_used_quantum(),
    };
    if over && !context.borrowed.get() {
        let _ = suspend(Wait::Turn);
    }
}

/// SQLite allocates, and holds nothing here that others share.
pub(crate) fn on_allocation() {
    let Some(context) = context_opt() else { return };
    let allocations = context.allocations.get() + 1;
    context.allocations.set(allocations);
    if allocations.is_multiple_of(ALLOCATIONS_PER_CALL) {
        on_call();
    }
}

/// Between two statements: many short ones reach no other look.
pub fn look() {
    on_call();
}

/// Long work within one step of SQLite's virtual machine: suspend if the slice is used up; `true`
/// interrupts the statement.
pub(crate) fn on_stretch() -> bool {
    let Some(context) = context_opt() else { return false };
    context.calls.set(context.calls.get() + 1);
    if context.is_over() && !context.borrowed.get() {
        let _ = suspend(Wait::Turn);
    }
    is_interrupted()
}

/// So little of the running fiber's stack is left that nothing may go deeper.
pub(crate) fn is_stack_short() -> bool {
    let here = 0_u8;
    let address = ptr::from_ref(&here).addr();
    context_opt().is_some_and(|context| address < context.stack_limit + STACK_SPARE_BYTES)
}

/// Whether the running fiber's statement is to be interrupted.
#[must_use]
pub fn is_interrupted() -> bool {
    context_opt().is_some_and(|context| context.interrupt)
}

impl<Y: 'static, A: 'static, R: 'static> Fiber<Y, A, R> {
    /// A fiber that will run `body` on `stack` when it is first resumed.
    pub fn new<F>(stack: Stack, body: F) -> Fiber<Y, A, R>
    where
        F: FnOnce(&Handle<'_, Y, A>) -> R + 'static,
    {
        let stack_limit = stack.0.limit().get();
        let coroutine = Coroutine::with_stack(stack.0, move |yielder, input: Input<A>| {
            assert!(matches!(input, Input::Start));
            context().yielder.set(ptr::from_ref(yielder).cast());
            body(&Handle { yielder })
        });
        Fiber {
            coroutine: Some(coroutine),
            yielder: ptr::null(),
            stack_limit,
            committed: false,
            ended: false,
            meter: Meter::default(),
        }
    }

    /// Run until the next suspension or the end. Returns the VM steps used too, rounded down to
    /// [`PROGRESS_STEPS`].
    ///
    /// # Panics
    /// If the fiber has ended, or another one is running: bugs of the loop.
    pub fn resume(&mut self, loan: Loan<'_>, input: Input<A>) -> (Step<Y, R>, u64) {
        assert!(!self.ended);
        assert!(CURRENT.get().is_null(), "a fiber may not resume a fiber");
        let context = Context {
            yielder: Cell::new(self.yielder),
            suspend: suspend_as::<Y, A>,
            account: loan.volume.account(),
            volume: ptr::from_mut(loan.volume),
            borrowed: Cell::new(false),
            // SAFETY: only the lifetime is forgotten: the pointer is used while this frame, and the
            // loan that it holds, are alive.
            clock: unsafe { std::mem::transmute::<&dyn Clock, &'static dyn Clock>(loan.clock) },
            steps: Cell::new(0),
            calls: Cell::new(0),
            allocations: Cell::new(0),
            quantum_steps: loan.quantum_steps,
            slice_ends: loan.slice_ends,
            interrupt: loan.interrupt,
            stack_limit: self.stack_limit,
            committed: Cell::new(self.committed),
            meter: &raw const self.meter,
        };
        CURRENT.set(ptr::from_ref(&context));
        stretch::begin();
        let coroutine = self.coroutine.as_mut().expect("a fiber that has not ended has a stack");
        let result = coroutine.resume(input);
        stretch::look();
        CURRENT.set(ptr::null());
        self.yielder = context.yielder.get();
        self.committed = context.committed.get();
        let step = match result {
            CoroutineResult::Yield(Yielded::Waits(wait)) => Step::Waits(wait),
            CoroutineResult::Yield(Yielded::Asks(question)) => Step::Asks(question),
            CoroutineResult::Return(value) => {
                self.ended = true;
                Step::Ends(value)
            }
        };
        (step, context.steps.get())
    }

    /// What its statements have cost since the last call, the one that runs now not included.
    pub fn take_cost(&mut self) -> Cost {
        self.meter.take_total()
    }

    /// The stack of a fiber that has ended.
    ///
    /// # Panics
    /// If it has not ended.
    #[must_use]
    pub fn into_stack(mut self) -> Stack {
        assert!(self.ended);
        let coroutine = self.coroutine.take().expect("the stack is taken once");
        Stack(coroutine.into_stack())
    }
}

impl<Y: 'static, A: 'static, R: 'static> Drop for Fiber<Y, A, R> {
    fn drop(&mut self) {
        if let Some(coroutine) = &self.coroutine {
            // Unwinding through SQLite's frames is undefined: better no process than that.
            if coroutine.started() && !coroutine.done() {
                eprintln!("bug: a suspended fiber was dropped");
                std::process::abort();
            }
        }
    }
}

/// A fiber's stack, with a guard page below it.
pub struct Stack(DefaultStack);

/// Stacks that are not in use, up to a bound; more than that are given back to the kernel.
/// All are booked on [`AccountId::STACKS`], as if they were resident from end to end.
#[derive(Default)]
pub struct StackPool {
    free: Vec<Stack>,
    taken: usize,
}

impl StackPool {
    /// Stacks kept for reuse.
    const FREE_MAX: usize = 256;

    /// A stack, new or used.
    ///
    /// # Errors
    /// If the kernel refuses memory.
    pub fn take(&mut self) -> io::Result<Stack> {
        let stack = match self.free.pop() {
            Some(stack) => stack,
            None => {
                let stack = Stack(DefaultStack::new(STACK_BYTES)?);
                let fits = ledger::charge(AccountId::STACKS, Kind::Stack, STACK_BYTES as u64);
                assert!(fits, "the number of stacks is bounded, not their account");
                stack
            }
        };
        self.taken += 1;
        Ok(stack)
    }

    /// Give a stack back.
    pub fn give(&mut self, stack: Stack) {
        assert!(self.taken > 0);
        self.taken -= 1;
        if self.free.len() < StackPool::FREE_MAX {
            self.free.push(stack);
        } else {
            ledger::credit(AccountId::STACKS, Kind::Stack, STACK_BYTES as u64);
        }
    }

    /// Stacks in use now.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }
}

impl Drop for StackPool {
    fn drop(&mut self) {
        let bytes = self.free.len() * STACK_BYTES;
        ledger::credit(AccountId::STACKS, Kind::Stack, bytes as u64);
    }
}
