# gnuplot two_hosts.gp draws two_hosts.svg again
set terminal svg size 860,520 dynamic background rgb 'white'
set termoption noenhanced
set output 'two_hosts.svg'
set datafile separator comma
set grid
set key outside right top
set title 'full: a step of 16 sequences on two hosts'
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.85 border -1
set ylabel 'ms a step'
set yrange [0:*]
plot for [i=2:6] 'two_hosts_bars.csv' using i:xtic(1) title columnheader(i)
