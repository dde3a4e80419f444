# gnuplot memory.gp draws memory.svg again
set terminal svg size 860,520 dynamic background rgb 'white'
set termoption noenhanced
set output 'memory.svg'
set datafile missing 'nan'
set grid
set key outside right top
set xlabel ''
set ylabel 'MiB, rank 0'
set style data histograms
set style histogram rowstacked
set style fill solid 0.85 border -1
set boxwidth 0.7
set xtics rotate by -25
set yrange [0:*]
plot 'memory.dat' using 2:xtic(1) title 'codes', \
     '' using 3 title 'masters', \
     '' using 4 title 'gradients', \
     '' using 5 title 'optimizer', \
     '' using 6 title 'activations', \
     '' using 7 title 'wire', \
     '' using 8 title 'workspace', \
     '' using 9 title 'loader', \
     '' using 10 title 'program'
