/** Raw data channels between Node's processes, by node-datachannel without anything of ours. */
import { PeerConnection, type DataChannel } from "node-datachannel";
import { FRAME_BYTES_MAX } from "../../src/protocol/limits.ts";
import { RAW_LOW_WATER_BYTES, rawEnd, type End } from "./ends.ts";

/** What would be collected as garbage otherwise. */
const held: unknown[] = [];

export interface RawDial {
  readonly bytes: number;
  /** Takes the offer to the other end and brings back its answer. */
  readonly exchange: (offer: string) => Promise<string>;
}

export function dialRaw({ bytes, exchange }: RawDial): Promise<End> {
  const peer = new PeerConnection("raw", { iceServers: [], maxMessageSize: FRAME_BYTES_MAX });
  peer.onGatheringStateChange((state) => {
    if (state === "complete") {
      void exchange(peer.localDescription()?.sdp ?? "").then((answer) => peer.setRemoteDescription(answer, "answer"));
    }
  });
  return openRaw(peer, peer.createDataChannel("raw"), bytes);
}

/** Answers an offer; the end serves whatever it is asked for. */
export function answerRaw(offer: string, bytes: number): Promise<string> {
  const peer = new PeerConnection("raw", { iceServers: [], maxMessageSize: FRAME_BYTES_MAX });
  peer.onDataChannel((channel) => void openRaw(peer, channel, bytes));
  return new Promise((resolve) => {
    peer.onGatheringStateChange((state) => {
      if (state === "complete") {
        resolve(peer.localDescription()?.sdp ?? "");
      }
    });
    peer.setRemoteDescription(offer, "offer");
  });
}

function openRaw(peer: PeerConnection, channel: DataChannel, bytes: number): Promise<End> {
  held.push(peer, channel);
  channel.setBufferedAmountLowThreshold(RAW_LOW_WATER_BYTES);
  const { message, end } = rawEnd(
    {
      send: (each) => channel.sendMessageBinary(each),
      buffered: () => channel.bufferedAmount(),
      onLow: (wake) => channel.onBufferedAmountLow(wake),
    },
    bytes,
  );
  channel.onMessage((data) => message(typeof data === "string" ? new Uint8Array() : new Uint8Array(data)));
  return new Promise((resolve) => {
    channel.onOpen(() => resolve(end));
    if (channel.isOpen()) {
      resolve(end);
    }
  });
}
