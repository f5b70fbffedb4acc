import { mock } from "node:test";

/** A clock that only moves when it is told to. It drives `Date`, `performance.now` and timers. */
export class FakeClock {
  private monotonic = 1_000;

  constructor() {
    mock.timers.enable({ apis: ["Date", "setTimeout"], now: 1_790_000_000_000 });
    mock.method(performance, "now", () => this.monotonic);
  }

  tick(ms: number): void {
    this.monotonic += ms;
    mock.timers.tick(ms);
  }

  stop(): void {
    mock.timers.reset();
    mock.restoreAll();
  }
}

/**
 * A media element as far as the library looks at one. It fires what the HTML standard says, in that
 * order.
 */
export class FakeMedia extends EventTarget {
  paused = true;
  ended = false;
  seeking = false;
  readyState = 4;
  duration = 100;
  loop = false;
  private rate = 1;
  private at = 0;
  /** Whether data has run out: time passes, the position does not. */
  stalled = false;

  constructor(private readonly clock: FakeClock) {
    super();
  }

  get asElement(): HTMLMediaElement {
    return this as unknown as HTMLMediaElement;
  }

  fire(...events: string[]): void {
    for (const event of events) this.dispatchEvent(new Event(event));
  }

  get currentTime(): number {
    return this.at;
  }

  /** Seeks, and lands at once. */
  set currentTime(to: number) {
    this.beginSeek(to);
    this.endSeek();
  }

  beginSeek(to: number): void {
    this.at = to;
    this.seeking = true;
    this.ended = false;
    this.fire("timeupdate", "seeking");
  }

  endSeek(): void {
    this.seeking = false;
    this.fire("timeupdate", "seeked");
    if (!this.paused) this.fire("playing");
  }

  get playbackRate(): number {
    return this.rate;
  }

  set playbackRate(rate: number) {
    this.rate = rate;
    this.fire("ratechange");
  }

  play(): void {
    if (this.ended) this.currentTime = 0;
    this.paused = false;
    this.fire("play", "playing");
  }

  pause(): void {
    this.paused = true;
    this.fire("timeupdate", "pause");
  }

  /** The position moves without a seek, as native live players do. */
  jump(to: number): void {
    this.at = to;
    this.fire("timeupdate");
  }

  /** Sets a new source: the old one is gone in this turn, `emptied` follows. */
  load(duration: number): void {
    this.at = 0;
    this.readyState = 0;
    this.paused = true;
    this.seeking = this.ended = false;
    this.duration = NaN;
    this.fire("emptied");
    this.readyState = 4;
    this.duration = duration;
    this.fire("loadedmetadata");
  }

  /** Lets time pass, with `timeupdate` four times a second. */
  run(ms: number): void {
    for (let left = ms; left > 0; left -= 250) {
      const step = Math.min(250, left);
      this.clock.tick(step);
      if (this.paused || this.stalled || this.seeking) continue;
      this.at += (step / 1_000) * this.rate;
      if (this.at >= this.duration && this.loop) {
        this.currentTime = 0;
      } else if (this.at >= this.duration) {
        this.at = this.duration;
        this.ended = this.paused = true;
        this.fire("timeupdate", "pause", "ended");
      } else {
        this.fire("timeupdate");
      }
    }
  }
}
