#!/usr/bin/env bash
# Makes film.webm, the film of the live page: three minutes of moving shapes with a clock, so that a
# viewer sees where a seek went. Needs ffmpeg with libvpx-vp9 (Debian: apt-get install ffmpeg
# fonts-dejavu-core). Run it only to change the film: the result is committed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=180
font=/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf
bar="drawbox=x=0:y=ih-14:w=iw:h=14:color=0x1b3a5b:t=fill"
clock="drawtext=fontfile=$font:text='%{pts\:hms}':fontsize=54:fontcolor=white:x=(w-tw)/2:y=(h-th)/2"
name="drawtext=fontfile=$font:text='PLAYHEAD TEST FILM':fontsize=18:fontcolor=0xa9c7e8:x=24:y=22"
# A ball that crosses the picture every twelve seconds, and a bar that fills over the whole film.
ball="color=c=0xf2a33a:s=28x28:r=10:d=$seconds[ball]"
fill="color=c=0x3fb6a8:s=480x14:r=10:d=$seconds[fill]"
ffmpeg -y -loglevel error -f lavfi -i "color=c=0x0d2136:s=480x270:r=10:d=$seconds" -filter_complex "
$ball;$fill;
[0:v]$bar,$name,$clock[base];
[base][fill]overlay=x='-w+w*t/$seconds':y=H-14[filled];
[filled][ball]overlay=x='(W-w)*abs(mod(t/6,2)-1)':y='200-60*abs(sin(t*2))'" \
    -t "$seconds" -c:v libvpx-vp9 -b:v 0 -crf 52 -g 40 -deadline good -cpu-used 2 -row-mt 1 \
    -fflags +bitexact -flags:v +bitexact -map_metadata -1 -an film.webm
ls -l film.webm
