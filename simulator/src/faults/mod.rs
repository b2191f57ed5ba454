//! What may go wrong in a run, as numbers that can be printed, drawn and overridden.
//!
//! Rates are parts per million per operation, times are nanoseconds. [`Faults::calm`] has none at
//! all, [`Faults::drawn`] latency and short counts, [`Faults::swarm`] draws each class on or off.

mod kind;

pub use kind::{FaultCount, FaultCounts, FaultKind};

use std::fmt;

use crate::draws::{Draws, PER_MILLION, Span, Stream};

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
        faults.sync_error_per_million = rate(103, 50_000);
        faults.no_space_per_million = rate(104, 10_000);
        faults.accept_error_per_million = rate(105, 20_000);
        // A world is some thousand disk operations long: rates are over those of real disks, and
        // `damages_max` keeps the damages few.
        faults.open_error_per_million = rate(110, 10_000);
        faults.misdirected_read_per_million = rate(111, 5_000);
        faults.misdirected_write_per_million = rate(112, 20_000);
        faults.lost_write_per_million = rate(113, 20_000);
        faults.latent_sector_per_million = rate(114, 10_000);
        faults.rot_file_per_million = rate(115, 10_000);
        faults.rot_log_per_million = rate(116, 10_000);
        faults.rot_ring_per_million = rate(117, 10_000);
        faults.rot_at_crash_per_million = rate(118, 500_000);
        faults.page_evicted_per_million = rate(119, 50_000);
        let spare = mood > 1;
        faults.damages_max = draws.logarithmic(Stream::Options, 120, Span::new(1, 3));
        faults.sync_semantics = [SyncSemantics::Kept, SyncSemantics::Late, SyncSemantics::Reverted]
            [draws.index(Stream::Options, 121, 3)];
        if draws.below(Stream::Options, 122, 16) == 0 && spare {
            let span = Span::new(2_000_000_000, 100_000_000_000);
            faults.read_only_at_ns = draws.logarithmic(Stream::Options, 123, span);
        }
        if spare && draws.below(Stream::Options, 106, 4) == 0 {
            let span = Span::new(16 << 20, 1 << 32);
            faults.disk_bytes_max = draws.logarithmic(Stream::Options, 107, span);
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
        ] {
            assert!(rate <= PER_MILLION);
        }
    }
}

impl fmt::Display for Faults {
    /// One line of `name=value`, all options in full.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = match self.namespace_model {
            NamespaceModel::Posix => "posix",
            NamespaceModel::Ext4 => "ext4",
        };
        let semantics = match self.sync_semantics {
            SyncSemantics::Kept => "kept",
            SyncSemantics::Late => "late",
            SyncSemantics::Reverted => "reverted",
        };
        write!(f, "sector_bytes={} namespace_model={model}", self.sector_bytes)?;
        write!(f, " sync_semantics={semantics} double_faults={}", self.double_faults)?;
        for (name, value) in [
            ("disk_bytes_max", self.disk_bytes_max),
            ("disk_latency_mean_ns", self.disk_latency_mean_ns),
            ("disk_spike_per_million", self.disk_spike_per_million),
            ("disk_short_per_million", self.disk_short_per_million),
            ("read_error_per_million", self.read_error_per_million),
            ("write_error_per_million", self.write_error_per_million),
            ("sync_error_per_million", self.sync_error_per_million),
            ("no_space_per_million", self.no_space_per_million),
            ("open_error_per_million", self.open_error_per_million),
            ("read_only_at_ns", self.read_only_at_ns),
            ("misdirected_read_per_million", self.misdirected_read_per_million),
            ("misdirected_write_per_million", self.misdirected_write_per_million),
            ("lost_write_per_million", self.lost_write_per_million),
            ("latent_sector_per_million", self.latent_sector_per_million),
            ("rot_file_per_million", self.rot_file_per_million),
            ("rot_log_per_million", self.rot_log_per_million),
            ("rot_ring_per_million", self.rot_ring_per_million),
            ("rot_at_crash_per_million", self.rot_at_crash_per_million),
            ("page_evicted_per_million", self.page_evicted_per_million),
            ("damages_max", self.damages_max),
            ("network_short_per_million", self.network_short_per_million),
            ("tiny_segments_per_million", self.tiny_segments_per_million),
            ("accept_error_per_million", self.accept_error_per_million),
            ("callback_cost_ns", self.callback_cost_ns),
            ("run_cost_ns", self.run_cost_ns),
            ("wall_offset_ns", self.wall_offset_ns),
        ] {
            write!(f, " {name}={value}")?;
        }
        for (name, span) in [
            ("disk_spike_ns", self.disk_spike_ns),
            ("network_latency_mean_ns", self.network_latency_mean_ns),
            ("window_bytes", self.window_bytes),
        ] {
            write!(f, " {name}={}..{}", span.low, span.high)?;
        }
        Ok(())
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

    #[test]
    fn the_line_names_every_field() {
        let line = Faults::calm().to_string();
        let debug = format!("{:?}", Faults::calm());
        let fields = debug.matches(": ").count() - 3 * 2; // three spans with two fields each
        assert_eq!(line.matches('=').count(), fields);
    }
}
