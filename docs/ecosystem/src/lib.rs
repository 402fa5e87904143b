#![doc = include_str!("../../ecosystem.md")]
