//! What may go wrong in a run, as numbers that can be printed, drawn and overridden.
//!
//! Rates are parts per million per operation, times are nanoseconds. [`Faults::calm`] has none at
//! all, [`Faults::drawn`] latency and short counts, [`Faults::swarm`] draws each class on or off.

mod kind;

pub use kind::{FaultCount, FaultCounts, FaultKind};

use std::fmt;

use storage::allocator::Failing;

use crate::draws::{Draws, PER_MILLION, Span, Stream};
use crate::settings::{Field, Setting, Settings};

/// Which names survive a power loss when the directory was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceModel {
    /// Each pending operation is kept or undone by itself; only `sync_directory` makes it durable.
    Posix,
    /// Pending operations survive as a prefix of their order, and any sync commits all of them.
    Ext4,
}

/// What becomes of a file's pages when a sync of it fails; the three that CuttleFS (Rebello et al.,
/// "Can applications recover from fsync failures?", USENIX ATC 2020) found in Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncSemantics {
    /// The error is reported; pages count as clean and keep the new bytes (ext4, XFS).
    Kept,
    /// Success is reported, and the error at the next sync; pages as above (ext4, data journal).
    Late,
    /// The error is reported; pages go back to what the disk has (btrfs).
    Reverted,
}

/// The options of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Unit in which the disk writes atomically: 512 or 4096.
    pub sector_bytes: usize,
    /// What becomes of names at a power loss.
    pub namespace_model: NamespaceModel,
    /// Size of the disk; every file, directory and data block costs 4096 bytes of it.
    pub disk_bytes_max: u64,
    /// Mean of a disk operation's time.
    pub disk_latency_mean_ns: u64,
    /// How often a disk operation takes [`Faults::disk_spike_ns`] instead.
    pub disk_spike_per_million: u64,
    /// Time of such an operation.
    pub disk_spike_ns: Span,
    /// How often a disk transfer is short.
    pub disk_short_per_million: u64,
    /// How often a read fails with EIO.
    pub read_error_per_million: u64,
    /// How often a write fails with EIO; it may have happened in part.
    pub write_error_per_million: u64,
    /// How often a sync fails; the pages count as clean afterwards and are not durable.
    pub sync_error_per_million: u64,
    /// What a failed sync does.
    pub sync_semantics: SyncSemantics,
    /// How often an operation that needs space is refused for the lack of it.
    pub no_space_per_million: u64,
    /// How often an open fails with EMFILE, ENFILE or EACCES.
    pub open_error_per_million: u64,
    /// From when on everything that writes fails with EROFS; 0: never.
    pub read_only_at_ns: u64,
    /// How often a read gets another block, once.
    pub misdirected_read_per_million: u64,
    /// How often a block of a write lands elsewhere.
    pub misdirected_write_per_million: u64,
    /// How often a write succeeds and never reaches the medium.
    pub lost_write_per_million: u64,
    /// How often, per disk operation, a sector becomes unreadable until it is written.
    pub latent_sector_per_million: u64,
    /// How often, per disk operation, a block of a tenant's file rots.
    pub rot_file_per_million: u64,
    /// How often, per disk operation, a block of a log segment rots.
    pub rot_log_per_million: u64,
    /// How often, per disk operation, a block of the ring rots.
    pub rot_ring_per_million: u64,
    /// How often, per crash, one of the four above strikes, if its rate is not 0.
    pub rot_at_crash_per_million: u64,
    /// How often, per disk operation, a clean page leaves the page cache.
    pub page_evicted_per_million: u64,
    /// Most damages that stay: with more of them every tenant would end fenced.
    pub damages_max: u64,
    /// Let two faults strike one fact (`disk/atlas.rs`).
    pub double_faults: bool,
    /// Mean of a packet's travel, drawn per connection from this range.
    pub network_latency_mean_ns: Span,
    /// How often a send or a receive is short.
    pub network_short_per_million: u64,
    /// How many connections carry tiny segments.
    pub tiny_segments_per_million: u64,
    /// Bytes under way or unread per direction of a connection, drawn from this range.
    pub window_bytes: Span,
    /// How often an accept fails with ECONNABORTED or EMFILE.
    pub accept_error_per_million: u64,
    /// How often a segment finds its connection standing still from now on.
    pub clog_per_million: u64,
    /// For how long.
    pub clog_ns: Span,
    /// How often a segment sees some connections clogged one by one, and released otherwise.
    pub swizzle_per_million: u64,
    /// How often a segment is lost and the connection reset towards both ends.
    pub network_reset_per_million: u64,
    /// How often a segment is lost and its client gone, without a word to the server.
    pub half_open_per_million: u64,
    /// How often the machine sleeps in a run: the monotonic clock jumps forward.
    pub clock_jumps: u64,
    /// For how long.
    pub clock_jump_ns: Span,
    /// How often the wall clock is set in a run.
    pub wall_steps: u64,
    /// How far, forward or back.
    pub wall_step_ns: Span,
    /// How much faster than the monotonic clock the wall clock runs, in parts per million.
    pub wall_drift_per_million: i64,
    /// How many of SQLite's allocations for tenants fail.
    pub allocation_failure_per_million: u64,
    /// Time that one callback takes.
    pub callback_cost_ns: u64,
    /// Time that one `run` takes besides its callbacks.
    pub run_cost_ns: u64,
    /// Wall-clock time at the instant 0, in nanoseconds since 1970.
    pub wall_offset_ns: u64,
}

/// 2026-01-01 00:00 UTC in nanoseconds since 1970.
const WALL_OFFSET_NS: u64 = 1_767_225_600_000_000_000;

/// Ten years of 365 days in nanoseconds.
const TEN_YEARS_NS: u64 = 10 * 365 * 86_400 * 1_000_000_000;

impl Faults {
    /// Nothing goes wrong: steady times, whole counts, a large disk.
    #[must_use]
    pub fn calm() -> Faults {
        Faults {
            sector_bytes: 512,
            namespace_model: NamespaceModel::Posix,
            disk_bytes_max: 1 << 36,
            disk_latency_mean_ns: 100_000,
            disk_spike_per_million: 0,
            disk_spike_ns: Span::new(100_000_000, 5_000_000_000),
            disk_short_per_million: 0,
            read_error_per_million: 0,
            write_error_per_million: 0,
            sync_error_per_million: 0,
            sync_semantics: SyncSemantics::Kept,
            no_space_per_million: 0,
            open_error_per_million: 0,
            read_only_at_ns: 0,
            misdirected_read_per_million: 0,
            misdirected_write_per_million: 0,
            lost_write_per_million: 0,
            latent_sector_per_million: 0,
            rot_file_per_million: 0,
            rot_log_per_million: 0,
            rot_ring_per_million: 0,
            rot_at_crash_per_million: 0,
            page_evicted_per_million: 0,
            damages_max: 0,
            double_faults: false,
            network_latency_mean_ns: Span::new(200_000, 200_000),
            network_short_per_million: 0,
            tiny_segments_per_million: 0,
            window_bytes: Span::new(65_536, 65_536),
            accept_error_per_million: 0,
            clog_per_million: 0,
            clog_ns: Span::new(1_000_000, 5_000_000_000),
            swizzle_per_million: 0,
            network_reset_per_million: 0,
            half_open_per_million: 0,
            clock_jumps: 0,
            clock_jump_ns: Span::new(1_000_000, 3_600_000_000_000),
            wall_steps: 0,
            wall_step_ns: Span::new(1_000_000, 3_600_000_000_000),
            wall_drift_per_million: 0,
            allocation_failure_per_million: 0,
            callback_cost_ns: 1_000,
            run_cost_ns: 1_000,
            wall_offset_ns: WALL_OFFSET_NS,
        }
    }

    /// What no program may notice but by its clock: latencies, short counts, segmentation, the
    /// sector size, the namespace model and the wall clock are drawn, all errors are off.
    #[must_use]
    pub fn drawn(seed: u64) -> Faults {
        let mut draws = Draws::new(seed);
        let draws = &mut draws;
        let mut faults = Faults::calm();
        let o = Stream::Options;
        faults.sector_bytes = [512, 4096][draws.index(o, 1, 2)];
        faults.namespace_model =
            [NamespaceModel::Posix, NamespaceModel::Ext4][draws.index(o, 2, 2)];
        faults.disk_latency_mean_ns = draws.logarithmic(o, 3, Span::new(80_000, 5_000_000));
        faults.disk_spike_per_million = draws.below(o, 4, 5_001) * draws.below(o, 5, 2);
        faults.disk_short_per_million = draws.below(o, 6, 50_001);
        let mean_high = draws.logarithmic(o, 7, Span::new(100_000, 200_000_000));
        faults.network_latency_mean_ns = Span::new(100_000, mean_high);
        faults.network_short_per_million = draws.below(o, 8, 300_001);
        faults.tiny_segments_per_million = draws.below(o, 9, 500_001);
        let window_high = draws.logarithmic(o, 10, Span::new(2_048, 1 << 20));
        faults.window_bytes = Span::new(1_024, window_high);
        faults.callback_cost_ns = draws.within(o, 11, Span::new(200, 5_000));
        faults.run_cost_ns = draws.within(o, 12, Span::new(200, 5_000));
        faults.wall_offset_ns =
            WALL_OFFSET_NS - TEN_YEARS_NS + draws.below(o, 13, 2 * TEN_YEARS_NS);
        faults
    }

    /// As [`Faults::drawn`], and each class of errors is on in half the seeds, at a drawn rate. In a
    /// tenth of the seeds none is on at all, in a twentieth every one.
    #[must_use]
    pub fn swarm(seed: u64) -> Faults {
        let mut draws = Draws::new(seed);
        let mood = draws.below(Stream::Options, 100, 20);
        let mut rate = |entity: u64, high: u64| {
            let on = match (mood, draws.below(Stream::Options, entity, 2)) {
                (0 | 1, _) => 0,
                (2, _) => 1,
                (_, on) => on,
            };
            on * draws.logarithmic(Stream::Options, entity, Span::new(high / 100, high))
        };
        let mut faults = Faults::drawn(seed);
        faults.read_error_per_million = rate(101, 10_000);
        faults.write_error_per_million = rate(102, 1_000);
        faults.sync_error_per_million = rate(103, 200_000);
        faults.no_space_per_million = rate(104, 10_000);
        faults.accept_error_per_million = rate(105, 20_000);
        // A world is some thousand disk operations long: rates are over those of real disks, and
        // `damages_max` keeps the damages few.
        faults.open_error_per_million = rate(110, 10_000);
        faults.misdirected_read_per_million = rate(111, 1_000);
        faults.misdirected_write_per_million = rate(112, 20_000);
        faults.lost_write_per_million = rate(113, 20_000);
        faults.latent_sector_per_million = rate(114, 10_000);
        faults.rot_file_per_million = rate(115, 10_000);
        faults.rot_log_per_million = rate(116, 10_000);
        faults.rot_ring_per_million = rate(117, 10_000);
        faults.rot_at_crash_per_million = rate(118, 500_000);
        faults.page_evicted_per_million = rate(119, 500_000);
        let any = mood > 1;
        faults.damages_max = draws.logarithmic(Stream::Options, 120, Span::new(1, 3));
        faults.sync_semantics = [SyncSemantics::Kept, SyncSemantics::Late, SyncSemantics::Reverted]
            [draws.index(Stream::Options, 121, 3)];
        if draws.below(Stream::Options, 122, 16) == 0 && any {
            let span = Span::new(2_000_000_000, 100_000_000_000);
            faults.read_only_at_ns = draws.logarithmic(Stream::Options, 123, span);
        }
        if any && draws.below(Stream::Options, 106, 4) == 0 {
            let span = Span::new(16 << 20, 1 << 32);
            faults.disk_bytes_max = draws.logarithmic(Stream::Options, 107, span);
        }
        faults.draw_network(&mut draws);
        faults.draw_clock_and_memory(&mut draws);
        if !any {
            faults.calm_network_clock_and_memory();
        }
        faults.assert_sound();
        faults
    }

    /// Whether an error or damage of the disk may cost a tenant, a request or a start.
    #[must_use]
    pub fn has_disk_errors(&self) -> bool {
        let rates = [
            self.read_error_per_million,
            self.write_error_per_million,
            self.sync_error_per_million,
            self.open_error_per_million,
            self.read_only_at_ns,
            self.misdirected_read_per_million,
        ];
        self.has_damage() || rates.iter().any(|rate| *rate > 0)
    }

    /// Whether bytes on the disk may change behind the server's back.
    #[must_use]
    pub fn has_damage(&self) -> bool {
        let rates = [
            self.misdirected_write_per_million,
            self.lost_write_per_million,
            self.latent_sector_per_million,
            self.rot_file_per_million,
            self.rot_log_per_million,
            self.rot_ring_per_million,
        ];
        self.damages_max > 0 && rates.iter().any(|rate| *rate > 0)
    }

    /// Let the disk work from now on; what is damaged stays so.
    pub fn calm_disk(&mut self) {
        self.disk_bytes_max = Faults::calm().disk_bytes_max;
        self.disk_spike_per_million = 0;
        self.read_error_per_million = 0;
        self.write_error_per_million = 0;
        self.sync_error_per_million = 0;
        self.no_space_per_million = 0;
        self.open_error_per_million = 0;
        self.read_only_at_ns = 0;
        self.misdirected_read_per_million = 0;
        self.misdirected_write_per_million = 0;
        self.lost_write_per_million = 0;
        self.latent_sector_per_million = 0;
        self.rot_file_per_million = 0;
        self.rot_log_per_million = 0;
        self.rot_ring_per_million = 0;
        self.rot_at_crash_per_million = 0;
        self.page_evicted_per_million = 0;
    }

    /// The network's classes. Rates are per segment; a request and its answer
    /// are two to some fifty.
    fn draw_network(&mut self, draws: &mut Draws) {
        let mut rate = |entity: u64, high: u64| {
            let on = draws.below(Stream::Options, entity, 2);
            on * draws.logarithmic(Stream::Options, entity, Span::new(high / 100, high))
        };
        self.clog_per_million = rate(150, 5_000);
        self.swizzle_per_million = rate(151, 500);
        self.network_reset_per_million = rate(152, 2_000);
        self.half_open_per_million = rate(153, 1_000);
    }

    /// The clock's and the memory's classes.
    fn draw_clock_and_memory(&mut self, draws: &mut Draws) {
        let o = Stream::Options;
        self.clock_jumps = draws.below(o, 154, 2) * draws.within(o, 154, Span::new(1, 2));
        self.wall_steps = draws.below(o, 155, 2) * draws.within(o, 155, Span::new(1, 3));
        let drift = draws.below(o, 156, 2) * draws.within(o, 156, Span::new(1, 500));
        let forward = draws.below(o, 156, 2) == 1;
        self.wall_drift_per_million = if forward { drift as i64 } else { -(drift as i64) };
        let failures = draws.logarithmic(o, 157, Span::new(1, 1_000));
        self.allocation_failure_per_million = draws.below(o, 157, 2) * failures;
    }

    /// From now on the network only carries, the clocks only run, and memory is there.
    pub fn calm_network_clock_and_memory(&mut self) {
        let calm = Faults::calm();
        self.accept_error_per_million = calm.accept_error_per_million;
        self.clog_per_million = calm.clog_per_million;
        self.swizzle_per_million = calm.swizzle_per_million;
        self.network_reset_per_million = calm.network_reset_per_million;
        self.half_open_per_million = calm.half_open_per_million;
        self.clock_jumps = calm.clock_jumps;
        self.wall_steps = calm.wall_steps;
        self.allocation_failure_per_million = calm.allocation_failure_per_million;
    }

    /// Which allocations fail in the world of `seed`.
    #[must_use]
    pub fn allocations(&self, seed: u64) -> Failing {
        match self.allocation_failure_per_million {
            0 => Failing::Never,
            rate => Failing::PerMillion { rate, seed },
        }
    }

    /// Assert that the numbers make sense together.
    ///
    /// # Panics
    /// If a rate is over a million, or the sector size is neither 512 nor 4096.
    pub fn assert_sound(&self) {
        assert!(self.sector_bytes == 512 || self.sector_bytes == 4096);
        assert!(self.disk_latency_mean_ns > 0);
        assert!(self.window_bytes.low > 0);
        for rate in [
            self.disk_spike_per_million,
            self.disk_short_per_million,
            self.read_error_per_million,
            self.write_error_per_million,
            self.sync_error_per_million,
            self.no_space_per_million,
            self.open_error_per_million,
            self.misdirected_read_per_million,
            self.misdirected_write_per_million,
            self.lost_write_per_million,
            self.latent_sector_per_million,
            self.rot_file_per_million,
            self.rot_log_per_million,
            self.rot_ring_per_million,
            self.rot_at_crash_per_million,
            self.page_evicted_per_million,
            self.network_short_per_million,
            self.tiny_segments_per_million,
            self.accept_error_per_million,
            self.clog_per_million,
            self.swizzle_per_million,
            self.network_reset_per_million,
            self.half_open_per_million,
            self.allocation_failure_per_million,
            self.wall_drift_per_million.unsigned_abs(),
        ] {
            assert!(rate <= PER_MILLION);
        }
    }
}

impl Settings for Faults {
    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            ("sector_bytes", &mut self.sector_bytes),
            ("namespace_model", &mut self.namespace_model),
            ("disk_bytes_max", &mut self.disk_bytes_max),
            ("disk_latency_mean_ns", &mut self.disk_latency_mean_ns),
            ("disk_spike_per_million", &mut self.disk_spike_per_million),
            ("disk_spike_ns", &mut self.disk_spike_ns),
            ("disk_short_per_million", &mut self.disk_short_per_million),
            ("read_error_per_million", &mut self.read_error_per_million),
            ("write_error_per_million", &mut self.write_error_per_million),
            ("sync_error_per_million", &mut self.sync_error_per_million),
            ("sync_semantics", &mut self.sync_semantics),
            ("no_space_per_million", &mut self.no_space_per_million),
            ("open_error_per_million", &mut self.open_error_per_million),
            ("read_only_at_ns", &mut self.read_only_at_ns),
            ("misdirected_read_per_million", &mut self.misdirected_read_per_million),
            ("misdirected_write_per_million", &mut self.misdirected_write_per_million),
            ("lost_write_per_million", &mut self.lost_write_per_million),
            ("latent_sector_per_million", &mut self.latent_sector_per_million),
            ("rot_file_per_million", &mut self.rot_file_per_million),
            ("rot_log_per_million", &mut self.rot_log_per_million),
            ("rot_ring_per_million", &mut self.rot_ring_per_million),
            ("rot_at_crash_per_million", &mut self.rot_at_crash_per_million),
            ("page_evicted_per_million", &mut self.page_evicted_per_million),
            ("damages_max", &mut self.damages_max),
            ("double_faults", &mut self.double_faults),
            ("network_latency_mean_ns", &mut self.network_latency_mean_ns),
            ("network_short_per_million", &mut self.network_short_per_million),
            ("tiny_segments_per_million", &mut self.tiny_segments_per_million),
            ("window_bytes", &mut self.window_bytes),
            ("accept_error_per_million", &mut self.accept_error_per_million),
            ("clog_per_million", &mut self.clog_per_million),
            ("clog_ns", &mut self.clog_ns),
            ("swizzle_per_million", &mut self.swizzle_per_million),
            ("network_reset_per_million", &mut self.network_reset_per_million),
            ("half_open_per_million", &mut self.half_open_per_million),
            ("clock_jumps", &mut self.clock_jumps),
            ("clock_jump_ns", &mut self.clock_jump_ns),
            ("wall_steps", &mut self.wall_steps),
            ("wall_step_ns", &mut self.wall_step_ns),
            ("wall_drift_per_million", &mut self.wall_drift_per_million),
            ("allocation_failure_per_million", &mut self.allocation_failure_per_million),
            ("callback_cost_ns", &mut self.callback_cost_ns),
            ("run_cost_ns", &mut self.run_cost_ns),
            ("wall_offset_ns", &mut self.wall_offset_ns),
        ]
    }
}

impl Setting for NamespaceModel {
    fn show(&self) -> String {
        let name = match self {
            NamespaceModel::Posix => "posix",
            NamespaceModel::Ext4 => "ext4",
        };
        name.to_owned()
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "posix" => NamespaceModel::Posix,
            "ext4" => NamespaceModel::Ext4,
            _ => return Err("posix or ext4 is expected".to_owned()),
        };
        Ok(())
    }
}

impl Setting for SyncSemantics {
    fn show(&self) -> String {
        let name = match self {
            SyncSemantics::Kept => "kept",
            SyncSemantics::Late => "late",
            SyncSemantics::Reverted => "reverted",
        };
        name.to_owned()
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "kept" => SyncSemantics::Kept,
            "late" => SyncSemantics::Late,
            "reverted" => SyncSemantics::Reverted,
            _ => return Err("kept, late or reverted is expected".to_owned()),
        };
        Ok(())
    }
}

impl fmt::Display for Faults {
    /// One line of `name=value`, all options in full.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_worlds_have_no_errors_and_differ() {
        let mut ext4 = 0;
        for seed in 0..200 {
            let faults = Faults::drawn(seed);
            faults.assert_sound();
            assert_eq!(faults.read_error_per_million, 0);
            assert_eq!(faults.write_error_per_million, 0);
            assert_eq!(faults, Faults::drawn(seed));
            ext4 += u32::from(faults.namespace_model == NamespaceModel::Ext4);
        }
        assert!((60..=140).contains(&ext4), "{ext4} of 200");
    }

    #[test]
    fn a_swarm_switches_each_class_on_in_about_half_the_seeds() {
        let all: Vec<Faults> = (0..200).map(Faults::swarm).collect();
        let reads = all.iter().filter(|f| f.read_error_per_million > 0).count();
        let writes = all.iter().filter(|f| f.write_error_per_million > 0).count();
        assert!((60..=140).contains(&reads), "{reads} of 200");
        assert!((60..=140).contains(&writes), "{writes} of 200");
    }

    type Class = (&'static str, fn(&Faults) -> u64);

    #[test]
    fn each_class_of_network_clock_and_memory_is_on_in_about_half_the_seeds() {
        let all: Vec<Faults> = (0..200).map(Faults::swarm).collect();
        let classes: [Class; 8] = [
            ("clog", |f| f.clog_per_million),
            ("swizzle", |f| f.swizzle_per_million),
            ("reset", |f| f.network_reset_per_million),
            ("half-open", |f| f.half_open_per_million),
            ("jumps", |f| f.clock_jumps),
            ("steps", |f| f.wall_steps),
            ("drift", |f| f.wall_drift_per_million.unsigned_abs()),
            ("memory", |f| f.allocation_failure_per_million),
        ];
        for (name, class) in classes {
            let on = all.iter().filter(|faults| class(faults) > 0).count();
            assert!((60..=140).contains(&on), "{name}: {on} of 200");
            let calm = all.iter().copied().map(|mut faults| {
                faults.calm_network_clock_and_memory();
                class(&faults)
            });
            // Drift is no fault that ends: clocks go on as they are.
            assert!(name == "drift" || calm.sum::<u64>() == 0, "{name}");
        }
    }

    #[test]
    fn the_line_names_every_field() {
        let line = Faults::calm().to_string();
        let debug = format!("{:?}", Faults::calm());
        let fields = debug.matches(": ").count() - 6 * 2; // six spans with two fields each
        assert_eq!(line.matches('=').count(), fields);
    }
}
