//! `log ls`: lists partitions or extents.

use highwater_storage::inspect::{ExtentState, Listing, MapSource};
use serde::Serialize;

use super::Data;
use crate::failure::Failure;
use crate::output;
use crate::units::{ByteSize, readable_bytes};

#[derive(Serialize)]
struct PartitionLine {
    topic: String,
    id: String,
    partition: u32,
    store: u16,
    log_start: i64,
    end: i64,
    bytes: u64,
    extents: usize,
}

/// Prints one line for each partition.
pub(super) fn partitions(data: &Data<'_>, listing: &Listing, json: bool) -> Result<(), Failure> {
    let mut found = Vec::new();
    for store in &listing.stores {
        found.extend(store.partitions.iter().map(|partition| PartitionLine {
            topic: data.name(partition.tp.topic),
            id: partition.tp.topic.to_string(),
            partition: partition.tp.partition.get(),
            store: store.store.get(),
            log_start: partition.log_start.get(),
            end: partition.end.get(),
            bytes: partition.bytes,
            extents: partition.extents.len(),
        }));
    }
    found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    if json {
        return found.iter().try_for_each(output::print_json);
    }
    let mut rows =
        vec![["TOPIC", "PARTITION", "STORE", "START", "END", "BYTES", "EXTENTS"].map(str::to_owned).to_vec()];
    rows.extend(found.into_iter().map(|p| {
        vec![
            p.topic,
            p.partition.to_string(),
            p.store.to_string(),
            p.log_start.to_string(),
            p.end.to_string(),
            p.bytes.to_string(),
            p.extents.to_string(),
        ]
    }));
    output::print(&output::table(&rows))?;
    print_warnings(data, listing)
}

/// Prints which slabs take less space than their size.
fn print_holes(data: &Data<'_>, listing: &Listing) -> Result<(), Failure> {
    let slabs = listing.stores.iter().flat_map(|store| &store.slabs);
    for slab in slabs.filter(|slab| slab.allocated_bytes < slab.bytes) {
        let (takes, size) = (readable_bytes(slab.allocated_bytes), readable_bytes(slab.bytes));
        let path = data.relative_path(&slab.path);
        output::print(&format!("{path}: {takes} of {size} take space on the disk\n"))?;
    }
    Ok(())
}

/// Prints warnings about unreadable extent maps and unknown files after the list.
fn print_warnings(data: &Data<'_>, listing: &Listing) -> Result<(), Failure> {
    for store in &listing.stores {
        if let MapSource::Headers(why) = &store.map {
            output::print(&format!(
                "{}: cannot read the extent map ({why}); found extents by their headers\n",
                data.relative_path(&store.dir)
            ))?;
        }
        for path in &store.strangers {
            output::print(&format!("{}: not a file of the broker\n", data.relative_path(path)))?;
        }
    }
    for path in &listing.strangers {
        output::print(&format!("{}: not a file of the broker\n", data.relative_path(path)))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct ExtentLine {
    file: String,
    at: u64,
    bytes: u64,
    state: &'static str,
    #[serde(flatten)]
    contents: Option<ExtentContents>,
}

#[derive(Serialize)]
struct ExtentContents {
    topic: String,
    partition: u32,
    incarnation: u64,
    base_offset: i64,
    end_offset: i64,
    used_bytes: u64,
}

/// Prints one line for each extent.
pub(super) fn extents(data: &Data<'_>, listing: &Listing, json: bool) -> Result<(), Failure> {
    let slabs = listing.stores.iter().flat_map(|store| &store.slabs);
    let found = slabs.flat_map(|slab| {
        slab.extents.iter().map(|extent| ExtentLine {
            file: data.relative_path(&slab.path),
            at: extent.place.at,
            bytes: extent.bytes,
            state: match extent.state {
                ExtentState::Sealed => "sealed",
                ExtentState::Active => "active",
                ExtentState::Free => "free",
                ExtentState::Unknown => "unknown",
            },
            contents: extent.holds.map(|holds| ExtentContents {
                topic: data.name(holds.tp.topic),
                partition: holds.tp.partition.get(),
                incarnation: holds.incarnation.get(),
                base_offset: holds.base_offset.get(),
                end_offset: holds.end_offset.get(),
                used_bytes: holds.used_bytes,
            }),
        })
    });
    if json {
        return found.into_iter().try_for_each(|extent| output::print_json(&extent));
    }
    let heading = ["FILE", "AT", "SIZE", "STATE", "TOPIC", "PARTITION", "INCARNATION", "OFFSETS", "USED"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(found.map(|extent| {
        let mut row = vec![
            extent.file,
            extent.at.to_string(),
            ByteSize(extent.bytes).to_string(),
            extent.state.to_owned(),
        ];
        if let Some(contents) = extent.contents {
            row.extend([
                contents.topic,
                contents.partition.to_string(),
                contents.incarnation.to_string(),
                format!("{}..{}", contents.base_offset, contents.end_offset),
                contents.used_bytes.to_string(),
            ]);
        }
        row
    }));
    output::print(&output::table(&rows))?;
    print_holes(data, listing)?;
    print_warnings(data, listing)
}
