//! A node's promises about names and attributes, over one home and over several.

mod attributes;
mod birth;
mod exchange;
mod nameless;
mod support;
mod times;
