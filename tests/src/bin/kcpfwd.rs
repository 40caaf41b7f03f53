//! Carries TCP connections through stock KCP (tokio_kcp), so that it can be measured.
//!
//! The client accepts connections and gives each a KCP session of its own; the server connects to
//! its target for each session. KCP has no end of a stream: data travels in pieces of a 16-bit
//! length and so many bytes, and a piece of no length is the end.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_kcp::{KcpConfig, KcpListener, KcpNoDelayConfig, KcpStream};

/// TCP through stock KCP in its fastest mode: nodelay 1, interval 10, resend 2, nc 1
#[derive(Debug, Parser)]
#[command(name = "kcpfwd", version)]
struct Args {
    /// Windows of both directions, in packets
    #[arg(long, value_name = "PACKETS")]
    window: u16,
    #[command(subcommand)]
    end: End,
}

#[derive(Debug, Subcommand)]
enum End {
    /// Accept TCP connections and carry them to a server
    Client {
        /// Where connections are accepted
        #[arg(long)]
        listen: SocketAddr,
        /// The server's UDP address
        #[arg(long)]
        server: SocketAddr,
    },
    /// Take sessions and connect to a target for each
    Server {
        /// UDP address of the sessions
        #[arg(long)]
        listen: SocketAddr,
        /// Where the connections go
        #[arg(long)]
        target: SocketAddr,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let config = KcpConfig {
        nodelay: KcpNoDelayConfig::fastest(),
        wnd_size: (args.window, args.window),
        stream: true,
        ..KcpConfig::default()
    };
    match args.end {
        End::Client { listen, server } => client(config, listen, server).await,
        End::Server { listen, target } => serve(config, listen, target).await,
    }
}

async fn client(config: KcpConfig, listen: SocketAddr, server: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).await.context("TCP socket")?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Ok(kcp) = KcpStream::connect(&config, server).await {
                carry(tcp, kcp).await;
            }
        });
    }
}

async fn serve(config: KcpConfig, listen: SocketAddr, target: SocketAddr) -> Result<()> {
    let mut listener = KcpListener::bind(config, listen).await.context("UDP socket")?;
    loop {
        let (kcp, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Ok(tcp) = TcpStream::connect(target).await {
                carry(tcp, kcp).await;
            }
        });
    }
}

/// Copies both directions until both have ended or one has failed
async fn carry(tcp: TcpStream, kcp: KcpStream) {
    let _ = tcp.set_nodelay(true);
    let (tcp_in, tcp_out) = tcp.into_split();
    let (kcp_in, kcp_out) = tokio::io::split(kcp);
    // how it ended is of no use to anybody: the connection's ends see it
    let _ = tokio::try_join!(wrap(tcp_in, kcp_out), unwrap(kcp_in, tcp_out));
}

async fn wrap(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut piece = vec![0; LENGTH + PIECE];
    loop {
        let len = from.read(&mut piece[LENGTH..]).await?;
        let length = u16::try_from(len).map_err(io::Error::other)?;
        piece[..LENGTH].copy_from_slice(&length.to_be_bytes());
        to.write_all(&piece[..LENGTH + len]).await?;
        if len == 0 {
            return to.flush().await;
        }
    }
}

async fn unwrap(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let len = usize::from(from.read_u16().await?);
        if len == 0 {
            return to.shutdown().await;
        }
        let piece = piece.get_mut(..len).ok_or(io::ErrorKind::InvalidData)?;
        from.read_exact(piece).await?;
        to.write_all(piece).await?;
    }
}

/// Bytes of a piece's length
const LENGTH: usize = 2;
/// Most bytes of a piece
const PIECE: usize = 16 * 1024;
