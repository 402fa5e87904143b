mod client;
mod http1;
mod parser;
mod reader;
