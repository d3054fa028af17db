//! The end of a rewrite: the new extent takes the place of the old ones.

use super::super::Store;
use super::Rewrite;
use crate::api::{RewriteAborted, Rewritten, StoreEvent};
use crate::extent::Extent;
use crate::layout::Place;
use crate::map::{MapRecord, PartitionKey};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Partition, TailState};

impl Store {
    /// Swaps the extents, in memory and with one record of the map. Everything of the new one is durable.
    pub(super) fn end_rewrite(&mut self, mut rewrite: Rewrite) {
        let slot = rewrite.slot;
        if !self.has_checkpoint_after(&rewrite) {
            self.release_output(rewrite);
            return self.push_event(StoreEvent::Rewritten { slot, outcome: Err(RewriteAborted::Changed) });
        }
        let mut output = rewrite.output.take().expect("it is complete");
        output.extent.header_written = true;
        let outcome = Rewritten {
            bytes_after: u64::from(output.extent.used_bytes()),
            batches_after: output.batches,
            ..rewrite.outcome
        };
        let extent = output.extent;
        let (place, log2_bytes) = (extent.place.expect("it has space"), extent.log2_bytes);
        let (untimed, horizon) = (extent.untimed(), extent.horizon());
        let entry = extent.entry(true).expect("it has space");
        let partition = self.partition(slot).expect("it was looked at before each step");
        let (key, at) = (PartitionKey::from(partition.tp), rewrite.sources_in(partition));
        let at = at.expect("it was looked at before each step");
        let incarnations = partition.extents.range(at.clone()).map(|source| source.incarnation.0).collect();
        self.record_untimed(untimed);
        if let Some((incarnation, horizon_ms)) = horizon {
            self.record(&MapRecord::Horizon { incarnation, horizon_ms });
        }
        let seq = self.record(&MapRecord::Replaced { key, incarnations, extent: entry });

        let partition = self.partition_mut(slot).expect("as above");
        let replaced = partition.replace_extents(at, Extent { map_seq: Some(seq), ..extent });
        let behind = replaced.last().expect("at least one is replaced").sequence.next();
        let partition = self.partitions.get_mut(slot.0).expect("as above");
        self.budget.drop_below(&mut partition.chunks, behind);
        for source in &replaced {
            let place = source.place.expect("it had frames");
            if is_planted(Mutant::FreeReplacedAtOnce) {
                self.space.alloc.release(place, source.log2_bytes);
            } else {
                self.free_when_durable(seq, place, source.log2_bytes);
            }
        }
        // Each of these is as large as what is before it in the block.
        for log2 in log2_bytes..rewrite.log2_bytes {
            self.free_when_durable(seq, Place { at: place.at + (1 << log2), ..place }, log2);
        }
        self.stats.rewrites += 1;
        self.stats.rewritten_bytes_before += outcome.bytes_before;
        self.stats.rewritten_bytes_after += outcome.bytes_after;
        self.push_event(StoreEvent::Rewritten { slot, outcome: Ok(outcome) });
    }

    /// Makes sure that the map has a checkpoint of the log in a later extent: it has what producers sent last and where epochs began, and
    /// recovery reads on from there. `false`: none can be taken now.
    fn has_checkpoint_after(&mut self, rewrite: &Rewrite) -> bool {
        let last = rewrite.sources.last().expect("at least one is replaced").sequence.0;
        let Some(partition) = self.partition(rewrite.slot) else { return false };
        let is_clean = partition.tail_state == TailState::Clean;
        let known = partition.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.sequence);
        known > last || self.take_checkpoint(rewrite.slot, is_clean)
    }
}

impl Partition {
    /// Puts an extent in the place of these. Returns them.
    fn replace_extents(&mut self, at: std::ops::Range<usize>, extent: Extent) -> Vec<Extent> {
        assert!(self.extents[at.start].start_mark().point() == extent.start_mark().point());
        assert!(self.extents[at.end - 1].end_mark().point() == extent.end_mark().point());
        assert!(
            extent.sequence == self.extents[at.start].sequence && extent.sequence < self.durable.sequence
        );
        let start = at.start;
        let replaced = self.extents.drain(at).collect();
        self.extents.insert(start, extent);
        replaced
    }
}
