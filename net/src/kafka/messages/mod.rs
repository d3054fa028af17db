//! The messages, one file per family.

mod administration;
mod configs;
mod consumer_group;
mod fetch;
mod group;
mod group_admin;
mod group_offsets;
mod metadata;
mod offsets;
mod produce;
mod producer;
mod sasl;
mod topics;
mod transactions;

pub use administration::*;
pub use configs::*;
pub use consumer_group::*;
pub use fetch::*;
pub use group::*;
pub use group_admin::*;
pub use group_offsets::*;
pub use metadata::*;
pub use offsets::*;
pub use produce::*;
pub use producer::*;
pub use sasl::*;
pub use topics::*;
pub use transactions::*;
