mod client;
mod parser;
mod reader;
mod tcp;
